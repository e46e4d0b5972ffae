package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"go.yaml.in/yaml/v4"
)

// deployFiles are run by nobody here: that what stands in them is no nonsense is all that is shown.
const deployFiles = "../../deploy/cluster/"

func yamlDocs(t *testing.T, name string) (all []map[string]any) {
	t.Helper()
	b, err := os.ReadFile(deployFiles + name)
	if err != nil {
		t.Fatal(err)
	}
	for d := yaml.NewDecoder(bytes.NewReader(b)); ; {
		var doc map[string]any
		if err := d.Decode(&doc); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, doc)
	}
}

// under is what stands at a path of keys; of a list its first.
func under(v any, path ...string) any {
	for _, key := range path {
		if list, is := v.([]any); is {
			v = list[0]
		}
		of, _ := v.(map[string]any)
		v = of[key]
	}
	return v
}

func texts(v any) (all []string) {
	list, _ := v.([]any)
	for _, item := range list {
		all = append(all, item.(string))
	}
	return all
}

// takes has the server look at settings as it would at its start.
func takes(t *testing.T, what string, env map[string]string, args []string) *serveCmd {
	t.Helper()
	c, _, err := parse(t, env, args...)
	if err != nil {
		t.Fatalf("%s: %q: %v", what, args, err)
	}
	if err := c.config(nil).Validate(); err != nil {
		t.Errorf("%s: %q: %v", what, args, err)
	}
	return c
}

func TestTheComposeFile(t *testing.T) {
	doc := yamlDocs(t, "compose.yaml")[0]
	env := map[string]string{}
	for name, value := range under(doc, "x-store", "environment").(map[string]any) {
		if env[name] = value.(string); strings.HasPrefix(env[name], "${") {
			env[name] = "0123456789abcdef"
		}
	}
	proxy, err := os.ReadFile(deployFiles + "haproxy.cfg")
	if err != nil {
		t.Fatal(err)
	}
	stores := 0
	for name, service := range under(doc, "services").(map[string]any) {
		if name == "proxy" {
			continue
		}
		c := takes(t, name, env, texts(under(service, "command")))
		if cluster := c.config(nil).Cluster; cluster.Listen != name+":7422" || len(cluster.Join) != 3 || under(service, "hostname") != name {
			t.Errorf("%s: %+v", name, cluster)
		}
		if !strings.Contains(string(proxy), "server "+name+" "+name+":8080") {
			t.Errorf("haproxy.cfg doesn't know %s", name)
		}
		stores++
	}
	if stores != 3 {
		t.Errorf("%d stores", stores)
	}
}

func TestTheKubernetesManifests(t *testing.T) {
	kinds := map[string]int{}
	for _, doc := range yamlDocs(t, "kubernetes.yaml") {
		kind, _ := doc["kind"].(string)
		kinds[kind]++
		if kind == "ConfigMap" {
			if _, err := parseFile([]byte(under(doc, "data", "hubbub.yaml").(string)), serveFlags(t)); err != nil {
				t.Errorf("the config file: %v", err)
			}
		}
		if kind != "StatefulSet" && kind != "Deployment" {
			continue
		}
		pod := under(doc, "spec", "template")
		for _, label := range []string{"app", "part"} {
			if under(doc, "spec", "selector", "matchLabels", label) != under(pod, "metadata", "labels", label) {
				t.Errorf("%s: its selector isn't its pods'", kind)
			}
		}
		env := map[string]string{}
		for _, v := range under(pod, "spec", "containers", "env").([]any) {
			env[under(v, "name").(string)] = "0123456789abcdef"
		}
		env["POD_NAME"] = "hubbub-stores-1"
		var args []string
		for _, a := range texts(under(pod, "spec", "containers", "args")) {
			if !strings.HasPrefix(a, "--config=") {
				args = append(args, strings.ReplaceAll(a, "$(POD_NAME)", env["POD_NAME"]))
			}
		}
		c := takes(t, kind, env, args).config(nil)
		if len(c.Cluster.Join) != 3 || (kind == "StatefulSet") != (c.Cluster.Listen != "") || c.NodeName != "hubbub-stores-1" {
			t.Errorf("%s: %+v", kind, c.Cluster)
		}
	}
	for kind, n := range map[string]int{"ConfigMap": 1, "Service": 2, "StatefulSet": 1, "Deployment": 1, "PodDisruptionBudget": 2} {
		if kinds[kind] != n {
			t.Errorf("%d of %s, want %d", kinds[kind], kind, n)
		}
	}
}
