// Package openapitest compares requests and replies with api/openapi.yaml.
package openapitest

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"entra-connector/api"
)

// Document is api/openapi.yaml.
type Document struct {
	operations *http.ServeMux // the pattern is that of the operation
	schemas    *jsonschema.Compiler
	root       any

	mu       sync.Mutex
	compiled map[string]*jsonschema.Schema
}

const address = "file:///openapi.yaml"

// Read is the document of this repository.
var Read = sync.OnceValues(func() (*Document, error) {
	d := &Document{operations: http.NewServeMux(), schemas: jsonschema.NewCompiler(), compiled: make(map[string]*jsonschema.Schema)}
	if err := yaml.Unmarshal(api.OpenAPI, &d.root); err != nil {
		return nil, err
	}
	d.schemas.AssertFormat()
	if err := d.schemas.AddResource(address, d.root); err != nil {
		return nil, err
	}
	for _, operation := range d.Operations() {
		d.operations.Handle(operation, http.NotFoundHandler())
	}
	return d, nil
})

// Operations are the methods and paths, such as "GET /apps/{app}".
func (d *Document) Operations() (operations []string) {
	paths, _ := d.at("paths").(map[string]any)
	for path, item := range paths {
		for method := range item.(map[string]any) {
			if method != "parameters" {
				operations = append(operations, strings.ToUpper(method)+" "+path)
			}
		}
	}
	return operations
}

// at follows keys, and references on the way. It returns nil where there is nothing.
func (d *Document) at(keys ...string) any {
	v := d.root
	for i, key := range keys {
		object, _ := v.(map[string]any)
		v = object[key]
		if next, ok := v.(map[string]any); ok && i < len(keys)-1 {
			if to, ok := next["$ref"].(string); ok {
				return d.at(append(strings.Split(strings.TrimPrefix(to, "#/"), "/"), keys[i+1:]...)...)
			}
		}
	}
	return v
}

// Check says what a reply has that the document does not, and the same of a request that was
// answered with success. What it says quotes no value.
func (d *Document) Check(method, path, request string, status int, header http.Header, body []byte) error {
	_, operation := d.operations.Handler(httptest.NewRequest(method, path, nil))
	if operation == "" { // AnythingElse in template.yaml
		return d.schema("components", "schemas", "Problem").check(body)
	}
	method, template, _ := strings.Cut(operation, " ")
	keys := []string{"paths", template, strings.ToLower(method)}
	response := append(keys, "responses", strconv.Itoa(status))
	if d.at(response...) == nil {
		return fmt.Errorf("%s: the status %d is not documented", operation, status)
	}
	var errs []error
	if status < 300 && request != "" {
		errs = append(errs, d.schema(append(keys, "requestBody", "content", "application/json", "schema")...).check([]byte(request)))
	}
	documented, _ := d.at(append(response, "headers")...).(map[string]any)
	for _, name := range []string{"Location", "Retry-After", "Allow"} {
		if _, known := documented[name]; known != (header.Get(name) != "") {
			errs = append(errs, fmt.Errorf("the header %s is documented: %t", name, known))
		}
	}
	if content, _ := d.at(append(response, "content")...).(map[string]any); len(content) > 0 || len(body) > 0 {
		errs = append(errs, d.schema(append(response, "content", header.Get("Content-Type"), "schema")...).check(body))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%s %d: %w", operation, status, err)
	}
	return nil
}

// schema is a schema of the document, or why there is none.
type schema struct {
	compiled *jsonschema.Schema
	err      error
}

func (d *Document) schema(keys ...string) schema {
	place, ok := d.at(keys...).(map[string]any)
	if !ok {
		return schema{err: fmt.Errorf("there is no %s", strings.Join(keys, " "))}
	}
	to, _ := place["$ref"].(string)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.compiled[to] == nil {
		compiled, err := d.schemas.Compile(address + to)
		if err != nil {
			return schema{err: err}
		}
		d.compiled[to] = compiled
	}
	return schema{compiled: d.compiled[to]}
}

func (s schema) check(text []byte) error {
	if s.err != nil {
		return s.err
	}
	value, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return errors.New("this is no JSON")
	}
	var invalid *jsonschema.ValidationError
	if !errors.As(s.compiled.Validate(value), &invalid) {
		return nil
	}
	for len(invalid.Causes) > 0 {
		invalid = invalid.Causes[0]
	}
	return fmt.Errorf("/%s fails %s", strings.Join(invalid.InstanceLocation, "/"), strings.Join(invalid.ErrorKind.KeywordPath(), "/"))
}
