package packages

import (
	"strings"
	"sync"
	"testing"

	openapi "github.com/google/gnostic-models/openapiv2"
	"google.golang.org/protobuf/proto"
	models "k8s.io/kube-openapi/pkg/util/proto"
	"k8s.io/kube-openapi/pkg/util/proto/validation"
	"sigs.k8s.io/kustomize/kyaml/openapi/kubernetesapi"
	"sigs.k8s.io/yaml"
)

// schemas are Kubernetes' own, of a version that a module of Helm's has in it: older than what the manifests need, which
// is why fields that they don't know are no fault here.
var schemas = sync.OnceValues(func() (models.Models, error) {
	var doc openapi.Document
	name := kubernetesapi.DefaultOpenAPI
	text := kubernetesapi.OpenAPIMustAsset[name]("kubernetesapi/" + strings.ReplaceAll(name, ".", "_") + "/swagger.pb")
	if err := proto.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	return models.NewOpenAPIData(&doc)
})

// lacks is what an object lacks of what its kind must have.
func lacks(t *testing.T, apiVersion, kind, text string) (all []error) {
	t.Helper()
	of, err := schemas()
	if err != nil {
		t.Fatal(err)
	}
	group, version, is := strings.Cut(apiVersion, "/")
	if !is {
		group, version = "core", apiVersion
	}
	name := "io.k8s.api." + strings.TrimSuffix(group, ".k8s.io") + "." + version + "." + kind
	schema := of.LookupModel(name)
	if schema == nil {
		t.Fatalf("there is no %s", name)
	}
	var object any
	if err := yaml.Unmarshal([]byte(text), &object); err != nil {
		t.Fatal(err)
	}
	for _, err := range validation.ValidateModel(object, schema, kind) {
		if v, is := err.(validation.ValidationError); is {
			if _, is := v.Err.(validation.MissingRequiredFieldError); is {
				all = append(all, err)
			}
		}
	}
	return all
}

// A field that must be there is missed, which strict decoding doesn't see.
func TestWhatIsMissingIsFound(t *testing.T) {
	const service = "apiVersion: v1\nkind: Service\nmetadata: {name: x}\nspec:\n  ports:\n    - {name: http}\n"
	if all := lacks(t, "v1", "Service", service); len(all) != 1 || !strings.Contains(all[0].Error(), `"port"`) {
		t.Errorf("found is %v", all)
	}
	if all := lacks(t, "v1", "Service", strings.Replace(service, "http", "http, port: 80", 1)); len(all) != 0 {
		t.Errorf("found is %v", all)
	}
}
