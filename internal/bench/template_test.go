package bench

import "testing"

func TestTemplates(t *testing.T) {
	c := &conn{num: 12, room: 3}
	for text, want := range map[string]string{
		"%r": "bench-0a1b2c3d-3", "%n/%i/%p/%%": "3/12/data/%", "": "", "plain": "plain", "%%p": "%p",
	} {
		tmpl, err := parseTemplate(text)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(tmpl.append(nil, "0a1b2c3d", c, []byte("data"))); got != want {
			t.Errorf("%q comes to %q, want %q", text, got, want)
		}
	}
}
