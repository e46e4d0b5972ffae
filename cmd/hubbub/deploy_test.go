package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"regexp"
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
	for kind, n := range map[string]int{"ConfigMap": 1, "Service": 2, "StatefulSet": 1, "Deployment": 1, "PodDisruptionBudget": 2, "NetworkPolicy": 1} {
		if kinds[kind] != n {
			t.Errorf("%d of %s, want %d", kinds[kind], kind, n)
		}
	}
}

// No engine builds the image here: what its file says is held against the command line and the sources.
func TestTheDockerfile(t *testing.T) {
	b, err := os.ReadFile("../../Dockerfile")
	if err != nil {
		t.Fatal(err)
	}
	stages := strings.Split("\n"+string(b), "\nFROM ")
	last := map[string][]string{} // the instructions of the last stage
	for line := range strings.Lines(stages[len(stages)-1]) {
		word, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		last[word] = append(last[word], rest)
	}
	if user := last["USER"]; len(user) != 1 || strings.HasPrefix(user[0], "0") || strings.HasPrefix(user[0], "root") || strings.Trim(user[0], "0123456789:") != "" {
		t.Errorf("USER %q: Kubernetes' runAsNonRoot wants a number that isn't root's", user)
	}
	if len(last["RUN"]) > 0 {
		t.Errorf("RUN %q: there is no shell in it", last["RUN"])
	}
	list := func(instruction string) (words []string) {
		t.Helper()
		text := strings.Join(last[instruction], "\n")
		at := strings.Index(text, "[")
		if at < 0 {
			t.Fatalf("%s %s: a list is wanted, there is no shell", instruction, text)
		}
		if err := json.Unmarshal([]byte(text[at:]), &words); err != nil {
			t.Fatalf("%s %s: %v", instruction, text, err)
		}
		return words
	}
	entry := list("ENTRYPOINT")
	if len(entry) != 1 {
		t.Fatalf("ENTRYPOINT %q", entry)
	}
	takes(t, "CMD", map[string]string{"HUBBUB_DATA_DIR": t.TempDir()}, list("CMD"))
	check := list("HEALTHCHECK")
	if check[0] != entry[0] {
		t.Errorf("HEALTHCHECK runs %s, and the program is %s", check[0], entry[0])
	}
	var c cli
	if ctx, err := newParser(&c).Parse(check[1:]); err != nil || ctx.Command() != "health" {
		t.Errorf("HEALTHCHECK %q: %v", check, err)
	}
	copied := strings.Join(last["COPY"], "\n")
	for _, file := range []string{entry[0], "/LICENSE"} {
		if !strings.Contains(copied+"\n", " "+file+"\n") {
			t.Errorf("nothing is copied to %s", file)
		}
	}
	if !strings.Contains(stages[1], "-X example.com/hubbub.version=") || !strings.Contains(stages[1], "CGO_ENABLED=0") || !strings.Contains(stages[1], " -o "+entry[0]+" ") {
		t.Errorf("the build isn't that of make release:\n%s", stages[1])
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil {
		t.Fatal(err)
	}
	minor := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)
	if !strings.HasPrefix(stages[1], "golang:"+string(minor[1])+" ") {
		t.Errorf("go.mod wants Go %s, and the image is of %s", minor[1], strings.SplitN(stages[1], " ", 2)[0])
	}
	if compose := yamlDocs(t, "compose.yaml")[0]; under(compose, "x-store", "build", "context") != "../.." || under(compose, "x-store", "build", "dockerfile") != nil {
		t.Error("compose.yaml doesn't build this file")
	}
}
