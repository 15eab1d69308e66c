// SPDX-License-Identifier: Apache-2.0
// Copyright The Incumbent Authors.

package scaffold_test

import (
	"fmt"

	"github.com/incumbent-io/incumbent/pkg/scaffold"
)

func Example() {
	c := scaffold.Config{Dir: "acme", Name: "acme-manager", Controller: "team-label", Version: "v0.1.0"}
	if err := c.Validate(); err != nil {
		fmt.Println(err)
		return
	}
	files, err := c.Files()
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, file := range files {
		if file.Path == "main.go" || file.Path == "teamlabel/teamlabel.go" {
			fmt.Println(file.Path)
		}
	}
	// Output:
	// main.go
	// teamlabel/teamlabel.go
}
