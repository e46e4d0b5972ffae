package api

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// The description and the table of calls have the same paths, methods, names, queries and bodies. What is said of them,
// the answers, TestOpenAPI of the package hubbub holds against a server.
func TestDescriptionHasTheCalls(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Fatal(err)
	}
	described := map[string]*openapi3.Operation{}
	parameters := map[string][]string{}
	for path, item := range doc.Paths.Map() {
		for method, op := range item.Operations() {
			described[op.OperationID] = op
			parameters[op.OperationID] = []string{method + " " + path}
			for _, p := range slices.Concat(item.Parameters, op.Parameters) {
				if p.Value.In == "query" {
					parameters[op.OperationID] = append(parameters[op.OperationID], p.Value.Name)
				}
			}
		}
	}
	for _, r := range append(routes, description) {
		op := described[r.name]
		if op == nil {
			t.Errorf("the description has no %s", r.name)
			continue
		}
		delete(described, r.name)
		want := append([]string{r.method + " /" + strings.Join(r.path, "/")}, r.query...)
		if got := parameters[r.name]; got[0] != want[0] || !slices.Equal(slices.Sorted(slices.Values(got[1:])), slices.Sorted(slices.Values(want[1:]))) {
			t.Errorf("%s: described as %v, and is %v", r.name, got, want)
		}
		if (op.RequestBody != nil) != r.body {
			t.Errorf("%s: a body is described: %v, and it has one: %v", r.name, op.RequestBody != nil, r.body)
		}
		if op.Responses.Status(r.success()) == nil {
			t.Errorf("%s: success is %d, which isn't described", r.name, r.success())
		}
		for code := range op.Responses.Map() {
			known := slices.ContainsFunc(answers, func(status int) bool { return http.StatusText(status) != "" && code == strconv.Itoa(status) })
			if !known {
				t.Errorf("%s: the status %s is described and isn't counted", r.name, code)
			}
		}
	}
	for name := range described {
		t.Errorf("%s is described, and there is no such call", name)
	}
}

// The fields of bodies are those of the description's schemas.
func TestDescriptionHasTheFields(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(openAPI)
	if err != nil {
		t.Fatal(err)
	}
	call := doc.Components.Schemas["Call"].Value.Properties
	for name, fields := range map[string][]string{"publish": publishFields, "join": memberFields, "leave": memberFields, "disconnect": disconnectFields, "delete": deleteFields} {
		var described []string
		for field := range call[name].Value.Properties {
			described = append(described, field)
		}
		slices.Sort(described)
		if want := slices.Sorted(slices.Values(fields)); !slices.Equal(described, want) {
			t.Errorf("%s: described are %v, there are %v", name, described, want)
		}
	}
	if len(call) != len(operationNames) {
		t.Errorf("described are %d calls of a batch, there are %d", len(call), len(operationNames))
	}
}
