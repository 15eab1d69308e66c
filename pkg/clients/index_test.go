// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

// by indexes ConfigMaps by a key of their data.
func by(key string) cache.IndexFunc {
	return func(obj any) ([]string, error) { return []string{obj.(*corev1.ConfigMap).Data[key]}, nil }
}

func names(objects []any, err error) []string {
	if err != nil {
		return []string{err.Error()}
	}
	names := []string{}
	for _, o := range objects {
		names = append(names, o.(*corev1.ConfigMap).Name)
	}
	slices.Sort(names)
	return names
}

func TestIndexesArePrivateToTheirController(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.api.put("configmaps", "default", "a", object{"data": object{"color": "red", "size": "big"}})
		h.api.put("configmaps", "default", "b", object{"data": object{"color": "blue", "size": "big"}})
		colors, sizes := h.pool.View("colors", nil), h.pool.View("sizes", nil)
		defer colors.Release()
		defer sizes.Release()
		color, size := colors.Typed().Core().V1().ConfigMaps().Informer(), sizes.Typed().Core().V1().ConfigMaps().Informer()
		for range 2 { // Adding again does nothing.
			for informer, fn := range map[cache.SharedIndexInformer]cache.IndexFunc{color: by("color"), size: by("size")} {
				if err := informer.AddIndexers(cache.Indexers{"main": fn, cache.NamespaceIndex: cache.MetaNamespaceIndexFunc}); err != nil {
					t.Fatal(err)
				}
			}
			h.synced(colors)
		}
		red := &corev1.ConfigMap{Data: map[string]string{"color": "red", "size": "big"}}
		for _, tt := range []struct {
			name      string
			got, want []string
		}{
			{"ByIndex of one", names(color.GetIndexer().ByIndex("main", "red")), []string{"a"}},
			{"ByIndex of the other", names(size.GetIndexer().ByIndex("main", "big")), []string{"a", "b"}},
			{"ByIndex with the value of the other", names(color.GetIndexer().ByIndex("main", "big")), []string{}},
			{"Index of one", names(color.GetIndexer().Index("main", red)), []string{"a"}},
			{"Index of the other", names(size.GetIndexer().Index("main", red)), []string{"a", "b"}},
			{"values of one", sorted(color.GetIndexer().ListIndexFuncValues("main")), []string{"blue", "red"}},
			{"values of the other", sorted(size.GetIndexer().ListIndexFuncValues("main")), []string{"big"}},
			{"indexes of one", keys(color.GetIndexer().GetIndexers()), []string{"main", "namespace"}},
			{"by namespace", names(color.GetIndexer().ByIndex(cache.NamespaceIndex, "default")), []string{"a", "b"}},
			{"unknown", names(color.GetIndexer().ByIndex("other", "x")), []string{"Index with name other does not exist"}},
		} {
			if diff := cmp.Diff(tt.want, tt.got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", tt.name, diff)
			}
		}
		if got, err := color.GetIndexer().IndexKeys("main", "blue"); err != nil || !slices.Equal(got, []string{"default/b"}) {
			t.Errorf("IndexKeys: got %v, %v, want default/b", got, err)
		}
	})
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

func keys(indexers cache.Indexers) []string {
	var names []string
	for name := range indexers {
		names = append(names, name)
	}
	return sorted(names)
}

// The next run of a controller uses the index of the last one, and can type it.
func TestAnIndexOutlivesTheRun(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		h.api.put("configmaps", "default", "a", object{"data": object{"color": "red"}})
		old := h.pool.View("c", nil)
		if err := old.Typed().Core().V1().ConfigMaps().Informer().GetIndexer().AddIndexers(cache.Indexers{"color": by("color")}); err != nil {
			t.Fatal(err)
		}
		h.synced(old)
		next := h.pool.View("c", nil)
		defer next.Release()
		informer := cache.NewTypedSharedIndexInformer[*corev1.ConfigMap](next.Typed().Core().V1().ConfigMaps().Informer())
		if err := informer.AddTypedIndexers(cache.TypedIndexers[*corev1.ConfigMap]{"color": nil}); err != nil {
			t.Fatal(err)
		}
		old.Release()
		h.api.put("configmaps", "default", "b", object{"data": object{"color": "red"}})
		synctest.Wait()
		got, err := informer.GetTypedIndexer().ByTypedIndex("color", "red")
		if err != nil || len(got) != 2 {
			t.Errorf("got %v, %v, want a and b", got, err)
		}
	})
}

var errIndex = errors.New("the index function's own error")

func TestAFailingIndexFunctionFailsOnlyItsController(t *testing.T) {
	for _, tt := range []struct {
		name string
		fail func() ([]string, error)
		want string
	}{
		{"error", func() ([]string, error) { return nil, errIndex }, errIndex.Error()},
		{"panic", func() ([]string, error) { panic("boom") }, "panicked: boom"},
	} {
		for _, when := range []string{"before the object comes", "after it"} {
			t.Run(tt.name+" "+when, func(t *testing.T) {
				inBubble(t, func(t *testing.T, h *harness) {
					h.api.put("configmaps", "default", "good", object{"data": object{"color": "red"}})
					bad, good := h.pool.View("bad", nil), h.pool.View("good", nil)
					defer good.Release()
					fn := func(obj any) ([]string, error) {
						if obj.(*corev1.ConfigMap).Name == "bad" {
							return tt.fail()
						}
						return by("color")(obj)
					}
					r := &recorder{}
					informer := bad.Typed().Core().V1().ConfigMaps().Informer()
					if _, err := good.Typed().Core().V1().ConfigMaps().Informer().AddEventHandler(r); err != nil {
						t.Fatal(err)
					}
					if err := good.Attach(); err != nil {
						t.Fatal(err)
					}
					h.synced(bad)
					put := func() {
						h.api.put("configmaps", "default", "bad", object{"data": object{"color": "red"}})
						synctest.Wait()
					}
					if when == "after it" {
						put()
					}
					if err := informer.AddIndexers(cache.Indexers{"color": fn}); err != nil {
						t.Fatal(err)
					}
					if when != "after it" {
						put()
					}
					put()
					if diff := cmp.Diff([]string{"add default/bad", "add default/good", "update default/bad"}, dedupe(r.take())); diff != "" {
						t.Errorf("what another controller was told (-want +got):\n%s", diff)
					}
					if diff := cmp.Diff([]string{"good"}, names(informer.GetIndexer().ByIndex("color", "red"))); diff != "" {
						t.Errorf("what the index finds (-want +got):\n%s", diff)
					}
					err := <-bad.Faults()
					for _, want := range []string{tt.want, "default/bad", `index "color"`, "v1.ConfigMap (typed)"} {
						if !strings.Contains(err.Error(), want) {
							t.Errorf("got fault %v, want it to contain %q", err, want)
						}
					}
					if len(bad.Faults()) != 0 || len(good.Faults()) != 0 {
						t.Error("more than one fault was reported")
					}

					// The next run finds the index incomplete until the object goes.
					next := h.pool.View("bad", nil)
					defer next.Release()
					retry := next.Typed().Core().V1().ConfigMaps().Informer()
					if err := retry.AddIndexers(cache.Indexers{"color": fn}); err == nil || !strings.Contains(err.Error(), tt.want) {
						t.Errorf("adding the index again returned %v, want %q", err, tt.want)
					}
					bad.Release()
					h.api.remove("configmaps", "default", "bad")
					synctest.Wait()
					if err := retry.AddIndexers(cache.Indexers{"color": fn}); err != nil {
						t.Errorf("once the object is gone, adding the index again returned %v, want nil", err)
					}
				})
			})
		}
	}
}

func dedupe(s []string) []string { return slices.Compact(s) }

func TestIndexOfAnObjectReturnsTheFunctionsError(t *testing.T) {
	inBubble(t, func(t *testing.T, h *harness) {
		view := h.pool.View("c", nil)
		defer view.Release()
		informer := view.Typed().Core().V1().ConfigMaps().Informer()
		if err := informer.AddIndexers(cache.Indexers{"x": func(any) ([]string, error) { return nil, errIndex }}); err != nil {
			t.Fatal(err)
		}
		if _, err := informer.GetIndexer().Index("x", &corev1.ConfigMap{}); !errors.Is(err, errIndex) {
			t.Errorf("got %v, want %v", err, errIndex)
		}
	})
}
