// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package clients

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// stopGrace bounds how long Pool.Run waits for its informers once it is told
// to stop. Only a handler that never returns takes longer than milliseconds.
const stopGrace = 5 * time.Second

// PoolConfig says where the caches of a Pool come from.
type PoolConfig struct {
	// REST reaches the API server. It is copied. Required, except with Fakes.
	//
	// The pool dials its own connection, through REST.Dial if that is set, so
	// that closing a dead one never aborts anyone's write. REST.Timeout is
	// ignored, because it would end every watch. Typed caches speak protobuf
	// if REST asks for it.
	REST *rest.Config
	// Name begins the names of the informers in client-go's informer metrics.
	// Those must be unique in a process, so a second manager needs another
	// name. Default "incumbent".
	Name string
	// Fakes, in unit tests, is used instead of REST.
	Fakes *Fakes
}

// Pool holds one cache per (resource, form, scope) for all controllers of a
// manager. A cache starts when the first view asks for it, and its watch ends
// and its memory is freed when the last view releases it. Before Run nothing is
// requested from the API server. All methods are safe for concurrent use.
//
//	idle --Run--> running --ctx ends--> stopped
type Pool struct {
	name    string
	clients poolClients
	link    *link // nil with Fakes

	mu     sync.Mutex
	state  poolState
	ctx    context.Context // set while running
	caches map[cacheKey]*resourceCache
	// alive are the caches whose informers run, those that are ending included.
	alive map[*resourceCache]struct{}

	changes changes // of any cache's phase
	stopped chan struct{}
}

type poolState int

const (
	poolIdle poolState = iota
	poolRunning
	poolStopped
)

// errStopped is what a view of a stopped pool waits for in vain.
var errStopped = errors.New("the informer pool has stopped")

// poolClients are built when the first cache of their form is.
type poolClients struct {
	config     *rest.Config // nil with Fakes
	kubernetes func() (kubernetes.Interface, error)
	dynamic    func() (dynamic.Interface, error)
	metadata   func() (metadata.Interface, error)
}

// NewPool checks the configuration. It requests nothing.
func NewPool(config PoolConfig) (*Pool, error) { return newPool(config, defaultTiming) }

func newPool(config PoolConfig, timing timing) (*Pool, error) {
	p := &Pool{
		name:    config.Name,
		caches:  map[cacheKey]*resourceCache{},
		alive:   map[*resourceCache]struct{}{},
		stopped: make(chan struct{}),
	}
	if p.name == "" {
		p.name = "incumbent"
	}
	if config.Fakes != nil {
		fakes := *config.Fakes
		p.clients = poolClients{
			kubernetes: func() (kubernetes.Interface, error) { return given(fakes.Kubernetes, "Kubernetes"), nil },
			dynamic:    func() (dynamic.Interface, error) { return given(fakes.Dynamic, "Dynamic"), nil },
			metadata:   func() (metadata.Interface, error) { return given(fakes.Metadata, "Metadata"), nil },
		}
		return p, nil
	}
	if config.REST == nil {
		return nil, errors.New("clients: PoolConfig.REST is required")
	}
	cfg := rest.CopyConfig(config.REST)
	cfg.Timeout = 0
	if cfg.UserAgent == "" {
		cfg.UserAgent = rest.DefaultKubernetesUserAgent()
	}
	link, err := newLink(cfg, timing)
	if err != nil {
		return nil, err
	}
	p.link = link
	client := &http.Client{Transport: &patient{pool: p, next: link.transport}}
	if err := checkConfig(cfg, client); err != nil {
		return nil, err
	}
	p.clients = poolClients{
		config: cfg,
		kubernetes: sync.OnceValues(func() (kubernetes.Interface, error) {
			return kubernetes.NewForConfigAndClient(cfg, client)
		}),
		dynamic: sync.OnceValues(func() (dynamic.Interface, error) {
			return dynamic.NewForConfigAndClient(cfg, client)
		}),
		metadata: sync.OnceValues(func() (metadata.Interface, error) {
			return metadata.NewForConfigAndClient(cfg, client)
		}),
	}
	return p, nil
}

// Run starts the caches that views have asked for, and from then on each when
// it is asked for, until ctx ends. It returns when their goroutines have ended,
// or with an error that names those that have not after 5 s: the handlers of a
// view that was not detached can hold them. A pool runs once.
func (p *Pool) Run(ctx context.Context) error {
	ctx = klog.NewContext(ctx, klog.FromContext(ctx).WithName("informers"))
	p.mu.Lock()
	if p.state != poolIdle {
		p.mu.Unlock()
		return errors.New("clients: a pool runs only once")
	}
	p.state, p.ctx = poolRunning, ctx
	if p.link != nil {
		p.link.start(ctx)
	}
	for _, c := range p.caches {
		p.startLocked(c)
	}
	p.mu.Unlock()

	<-ctx.Done()
	p.mu.Lock()
	p.state = poolStopped
	for _, c := range p.caches {
		p.stopLocked(c)
	}
	ending := make([]*resourceCache, 0, len(p.alive))
	for c := range p.alive {
		ending = append(ending, c)
	}
	p.mu.Unlock()
	close(p.stopped)
	return p.awaitEnd(ending)
}

func (p *Pool) awaitEnd(ending []*resourceCache) error {
	if p.link != nil {
		defer p.link.close()
	}
	timeout := time.NewTimer(stopGrace)
	defer timeout.Stop()
	for _, c := range ending {
		select {
		case <-c.done:
		case <-timeout.C:
			var names []string
			for _, c := range ending {
				if !c.ended() {
					names = append(names, c.key.String())
				}
			}
			slices.Sort(names)
			return fmt.Errorf("clients: informers did not stop within %v: %s", stopGrace, strings.Join(names, ", "))
		}
	}
	return nil
}

// View returns the informers of one run of the controller that is called owner.
// It holds nothing until it is asked for an informer.
//
// onRefused (nil: none) is called when the API server refuses a list or watch of
// one of the view's caches, as forbidden (403) or not served (404): once per
// attempt, which client-go's back-off spaces, and once when the view asks for a
// cache that is refused already. The cache goes on trying by itself. onRefused is
// called without locks, on a goroutine that others wait for, so it must not block;
// calls can overlap, and one can still be under way when Release returns.
func (p *Pool) View(owner string, onRefused func()) *Informers {
	return &Informers{view: newView(p, owner, onRefused)}
}

// acquire returns the cache for key and a reference to it, building it if need be.
func (p *Pool) acquire(key cacheKey, build func(*resourceCache)) *resourceCache {
	p.mu.Lock()
	c, ok := p.caches[key]
	if !ok {
		c = newResourceCache(p, key)
		p.caches[key] = c
	}
	c.refs++
	p.mu.Unlock()

	// Outside the lock, because the builder of generated code is the author's.
	c.built.Do(func() { build(c) })

	p.mu.Lock()
	defer p.mu.Unlock()
	c.ready = true
	p.startLocked(c)
	return c
}

// release gives one reference back; the last one ends the cache.
func (p *Pool) release(c *resourceCache) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if c.refs--; c.refs > 0 {
		return
	}
	delete(p.caches, c.key)
	p.stopLocked(c)
	p.changes.broadcast()
}

func (p *Pool) startLocked(c *resourceCache) {
	if p.state != poolRunning || !c.ready || c.started || c.refs == 0 {
		return
	}
	c.started = true
	p.alive[c] = struct{}{}
	ctx := p.ctx
	go func() {
		c.run(ctx)
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.alive, c)
		close(c.done)
	}()
}

// stopLocked also gives the name back, at once, so that a successor can have it
// while this one still ends.
func (p *Pool) stopLocked(c *resourceCache) {
	c.end(errReleased)
	c.name.Release()
}

// context is the one that the pool runs in.
func (p *Pool) context() context.Context {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ctx
}

// active returns the caches that run and have synced at least once.
func (p *Pool) active() []*resourceCache {
	p.mu.Lock()
	defer p.mu.Unlock()
	var active []*resourceCache
	for _, c := range p.caches {
		if c.started && p.state == poolRunning && c.informer.HasSynced() {
			active = append(active, c)
		}
	}
	return active
}

// changes wakes those that wait for something to change.
type changes struct {
	mu   sync.Mutex
	wait chan struct{}
}

// next returns a channel that closes at the next broadcast.
func (c *changes) next() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wait == nil {
		c.wait = make(chan struct{})
	}
	return c.wait
}

func (c *changes) broadcast() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.wait != nil {
		close(c.wait)
		c.wait = nil
	}
}
