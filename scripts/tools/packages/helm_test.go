package packages

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	apps "k8s.io/api/apps/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	"sigs.k8s.io/yaml"
)

const chart = root + "/deploy/helm/hubbub"

// helm runs the tool of scripts/tools/go.mod.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	out, err := exec.Command("go", append([]string{"tool", "helm"}, args...)...).CombinedOutput()
	return string(out), err
}

// objects are those of a text, each decoded into Kubernetes' own type: a field that it doesn't have is an error.
type objects struct {
	deployments map[string]*apps.Deployment
	stores      *apps.StatefulSet
	config      string
	policies    []*networking.NetworkPolicy
	budgets     []*policy.PodDisruptionBudget
	monitors    []*serviceMonitor
	services    map[string]*core.Service
	kinds       map[string]int
}

func decode(t *testing.T, text string) objects {
	t.Helper()
	o := objects{deployments: map[string]*apps.Deployment{}, services: map[string]*core.Service{}, kinds: map[string]int{}}
	for _, doc := range strings.Split("\n"+text, "\n---\n") {
		var head struct {
			APIVersion, Kind string
			Metadata         struct{ Name string }
		}
		if err := yaml.Unmarshal([]byte(doc), &head); err != nil {
			t.Fatalf("%v in\n%s", err, doc)
		}
		name := head.Metadata.Name
		var to any
		switch head.Kind {
		case "":
			continue // comments alone
		case "Deployment":
			d := new(apps.Deployment)
			o.deployments[name], to = d, d
		case "StatefulSet":
			o.stores = new(apps.StatefulSet)
			to = o.stores
		case "Service":
			s := new(core.Service)
			o.services[name], to = s, s
		case "ConfigMap":
			to = new(core.ConfigMap)
		case "Ingress":
			to = new(networking.Ingress)
		case "NetworkPolicy":
			p := new(networking.NetworkPolicy)
			o.policies, to = append(o.policies, p), p
		case "PodDisruptionBudget":
			b := new(policy.PodDisruptionBudget)
			o.budgets, to = append(o.budgets, b), b
		case "ServiceMonitor":
			m := new(serviceMonitor)
			o.monitors, to = append(o.monitors, m), m
		default:
			t.Fatalf("a %s isn't expected", head.Kind)
		}
		if err := yaml.UnmarshalStrict([]byte(doc), to); err != nil {
			t.Errorf("%s %s: %v\n%s", head.Kind, name, err, doc)
		}
		if head.Kind != "ServiceMonitor" { // which isn't Kubernetes' own
			for _, err := range lacks(t, head.APIVersion, head.Kind, doc) {
				t.Errorf("%s %s: %v", head.Kind, name, err)
			}
		}
		if c, is := to.(*core.ConfigMap); is {
			o.config = c.Data["hubbub.yaml"]
		}
		o.kinds[head.Kind]++
	}
	return o
}

// serviceMonitor is what is used of the type, which is not Kubernetes' own.
type serviceMonitor struct {
	APIVersion, Kind string
	Metadata         struct {
		Name   string
		Labels map[string]string
	}
	Spec struct {
		Selector  struct{ MatchLabels map[string]string }
		Endpoints []struct{ Port, Path, Interval string }
	}
}

// pod holds what every pod needs, and has the program look at its settings as at a start.
func (o objects) pod(t *testing.T, of string, p core.PodTemplateSpec, selector map[string]string, secret map[string]string) {
	t.Helper()
	for k, v := range selector {
		if p.Labels[k] != v {
			t.Errorf("%s: its selector isn't its pods'", of)
		}
	}
	c := p.Spec.Containers[0]
	s := c.SecurityContext
	if p.Spec.SecurityContext == nil || !*p.Spec.SecurityContext.RunAsNonRoot || *p.Spec.SecurityContext.RunAsUser == 0 || s == nil || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || !slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) {
		t.Errorf("%s: its security is %+v, %+v", of, p.Spec.SecurityContext, s)
	}
	ports := map[string]int32{}
	for _, port := range c.Ports {
		ports[port.Name] = port.ContainerPort
	}
	for what, probe := range map[string]*core.Probe{"/readyz": c.ReadinessProbe, "/healthz": c.LivenessProbe} {
		if probe == nil || probe.HTTPGet.Path != what || ports[probe.HTTPGet.Port.String()] != 8080 {
			t.Errorf("%s: the probe of %s is %+v", of, what, probe)
		}
	}
	if c.Lifecycle == nil || c.Lifecycle.PreStop == nil || c.Lifecycle.PreStop.Sleep.Seconds < 1 {
		t.Errorf("%s: nothing comes before its end: %+v", of, c.Lifecycle)
	}
	env := append(slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "HUBBUB_") }), "POD_NAME=pod-1")
	for _, v := range c.Env {
		switch {
		case v.ValueFrom == nil:
			env = append(env, v.Name+"="+v.Value)
		case v.ValueFrom.SecretKeyRef != nil:
			env = append(env, v.Name+"=0123456789abcdef")
		}
	}
	for name, value := range secret {
		env = append(env, name+"="+value)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "hubbub.yaml")
	if err := os.WriteFile(file, []byte(o.config), 0o600); err != nil {
		t.Fatal(err)
	}
	args := []string{"config"}
	for _, a := range c.Args[1:] {
		args = append(args, strings.NewReplacer("$(POD_NAME)", "pod-1", "/etc/hubbub/hubbub.yaml", file, "--data-dir=/data", "--data-dir="+dir).Replace(a))
	}
	cmd := exec.Command(program(t), args...)
	cmd.Env = env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%s: hubbub %s: %v\n%s", of, strings.Join(args, " "), err, out)
	}
}

// chosen are the names of those whose labels fit.
func chosen(selector map[string]string, among map[string]map[string]string) string {
	var names []string
	for name, labels := range among {
		fits := true
		for k, v := range selector {
			fits = fits && labels[k] == v
		}
		if fits {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

// selects holds what each selector finds, by names: of the Deployment and the StatefulSet whose pods they are, of Services
// for a ServiceMonitor. "NetworkPolicy x from" is whom of ours it lets in where that isn't everyone. A port that is named must be one of what is found.
func (o objects) selects(t *testing.T, want map[string]string) {
	t.Helper()
	pods, services := map[string]map[string]string{}, map[string]map[string]string{} // their labels
	podPorts, servicePorts := map[string][]string{}, map[string][]string{}
	got := map[string]string{}
	add := func(name string, p core.PodTemplateSpec) {
		pods[name] = p.Labels
		for _, port := range p.Spec.Containers[0].Ports {
			podPorts[name] = append(podPorts[name], port.Name, fmt.Sprint(port.ContainerPort))
		}
	}
	for name, d := range o.deployments {
		add(name, d.Spec.Template)
	}
	if o.stores != nil {
		add(o.stores.Name, o.stores.Spec.Template)
		if s := o.services[o.stores.Spec.ServiceName]; s == nil || s.Spec.ClusterIP != core.ClusterIPNone || chosen(s.Spec.Selector, pods) != o.stores.Name {
			t.Errorf("the stores' Service is %s: %+v", o.stores.Spec.ServiceName, s)
		}
	}
	reaches := func(what, found, port string, ports map[string][]string) {
		for name := range strings.FieldsSeq(found) {
			if !slices.Contains(ports[name], port) {
				t.Errorf("%s: %s has no port %s", what, name, port)
			}
		}
	}
	for name, s := range o.services {
		what := "Service " + name
		services[name], got[what] = s.Labels, chosen(s.Spec.Selector, pods)
		for _, p := range s.Spec.Ports {
			servicePorts[name] = append(servicePorts[name], p.Name)
			to := p.TargetPort.String()
			if to == "0" { // none is said
				to = fmt.Sprint(p.Port)
			}
			reaches(what, got[what], to, podPorts)
		}
	}
	for _, b := range o.budgets {
		got["PodDisruptionBudget "+b.Name] = chosen(b.Spec.Selector.MatchLabels, pods)
	}
	for _, p := range o.policies {
		what := "NetworkPolicy " + p.Name
		got[what] = chosen(p.Spec.PodSelector.MatchLabels, pods)
		for _, rule := range p.Spec.Ingress {
			for _, from := range rule.From {
				if from.NamespaceSelector == nil {
					got[what+" from"] = chosen(from.PodSelector.MatchLabels, pods)
				}
			}
		}
	}
	for _, m := range o.monitors {
		found := chosen(m.Spec.Selector.MatchLabels, services)
		got["ServiceMonitor "+m.Metadata.Name] = found
		for _, e := range m.Spec.Endpoints {
			reaches("ServiceMonitor "+m.Metadata.Name, found, e.Port, servicePorts)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("selected are\n%v\nwant\n%v", got, want)
	}
}

// program is the one of the release.
func program(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	base := "hubbub_" + newVersion + "_linux_amd64"
	says(t, "tar", "-C", dir, "-xzf", filepath.Join(dists.new, base+".tar.gz"), base+"/hubbub")
	return filepath.Join(dir, base, "hubbub")
}

// The chart gives what Kubernetes and the server take, for one node and for a cluster.
func TestTheChart(t *testing.T) {
	cluster := chart + "/cluster.yaml"
	settings := filepath.Join(t.TempDir(), "settings.yaml")
	if err := os.WriteFile(settings, []byte("settings:\n  allowed-origins: [https://app.example.com]\n  rooms:\n    - {match: 'chat.*', presence: full}\n"+
		"ingress: {enabled: true, host: chat.example.com, tlsSecret: chat-tls}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	one := map[string]string{"Service talk": "talk", "Service talk-admin": "talk", "NetworkPolicy talk": "talk"}
	for name, of := range map[string]struct {
		args    []string
		kinds   map[string]int
		selects map[string]string
		secret  map[string]string
	}{
		"one node":               {nil, map[string]int{"ConfigMap": 1, "Deployment": 1}, one, nil},
		"one node with settings": {[]string{"-f", settings}, map[string]int{"ConfigMap": 1, "Deployment": 1, "Ingress": 1}, one, nil},
		"a cluster": {[]string{"-f", cluster}, map[string]int{"ConfigMap": 1, "Deployment": 1, "StatefulSet": 1}, map[string]string{
			"Service talk": "talk", "Service talk-admin": "talk", "Service talk-stores": "talk-stores",
			"PodDisruptionBudget talk": "talk", "PodDisruptionBudget talk-stores": "talk-stores", "ServiceMonitor talk": "talk-admin",
			"NetworkPolicy talk": "talk talk-stores", "NetworkPolicy talk from": "talk talk-stores",
		}, map[string]string{"HUBBUB_CLUSTER_SECRET": "0123456789abcdef"}},
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := helm(t, append([]string{"lint", "--strict", chart}, of.args...)...); err != nil {
				t.Errorf("lint: %v\n%s", err, out)
			}
			out, err := helm(t, append([]string{"template", "talk", chart, "--kube-version", "1.30.0"}, of.args...)...)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			o := decode(t, out)
			for kind, n := range of.kinds {
				if o.kinds[kind] != n {
					t.Errorf("%d of %s, want %d", o.kinds[kind], kind, n)
				}
			}
			o.selects(t, of.selects)
			d := o.deployments["talk"]
			o.pod(t, "the nodes", d.Spec.Template, d.Spec.Selector.MatchLabels, of.secret)
			if o.services["talk"].Spec.Ports[0].TargetPort.String() != "http" {
				t.Errorf("the Service leads to %+v", o.services["talk"].Spec.Ports)
			}
			for _, rule := range o.policies[0].Spec.Ingress { // only clients come from anywhere
				if port := rule.Ports[0].Port.String(); len(rule.From) == 0 && port != "http" {
					t.Errorf("anyone reaches %s", port)
				}
			}
			if o.stores != nil {
				o.pod(t, "the stores", o.stores.Spec.Template, o.stores.Spec.Selector.MatchLabels, of.secret)
			}
			if name == "one node with settings" && !strings.Contains(o.config, "match: chat.*") {
				t.Errorf("the settings are\n%s", o.config)
			}
		})
	}
	for set, says := range map[string]string{"nodes=2": "without stores there is one node", "stores=2": "0, 1, 3 or 5", "stores=3": "HUBBUB_CLUSTER_SECRET", "ingress.enabled=true": "ingress.host"} {
		if out, err := helm(t, "template", "talk", chart, "--kube-version", "1.30.0", "--set", set); err == nil || !strings.Contains(out, says) {
			t.Errorf("%s: %v, no %q in\n%s", set, err, says, out)
		}
	}
}

// So do the plain manifests.
func TestThePlainManifests(t *testing.T) {
	o := decode(t, read(t, root, "deploy/cluster/kubernetes.yaml")+"\n---\n"+read(t, root, "deploy/cluster/servicemonitor.yaml"))
	d := o.deployments["hubbub"]
	o.pod(t, "the nodes", d.Spec.Template, d.Spec.Selector.MatchLabels, nil)
	o.pod(t, "the stores", o.stores.Spec.Template, o.stores.Spec.Selector.MatchLabels, nil)
	o.selects(t, map[string]string{
		"Service hubbub": "hubbub", "Service hubbub-stores": "hubbub-stores",
		"PodDisruptionBudget hubbub": "hubbub", "PodDisruptionBudget hubbub-stores": "hubbub-stores",
		"ServiceMonitor hubbub": "hubbub hubbub-stores", "NetworkPolicy hubbub-stores": "hubbub-stores", "NetworkPolicy hubbub-stores from": "hubbub hubbub-stores",
	})
	if m := o.monitors[0].Spec.Endpoints; len(m) != 1 || m[0].Path != "/metrics" {
		t.Errorf("Prometheus scrapes %+v", m)
	}
}
