package hubbub_test

import (
	"net/http/httptest"
	"strings"
	"testing"

	"example.com/hubbub"
	"example.com/hubbub/internal/rawtest"
)

// The console is where the API is, and only where that has a key.
func TestConsoleIsWhereTheAPIIs(t *testing.T) {
	keys, _ := keyed(t, hubbub.Config{})
	apart, off, below := keys, keys, keys
	apart.AdminApart, off.Page, below.BasePath = true, "off", "/live"
	for name, c := range map[string]struct {
		cfg           hubbub.Config
		path          string
		public, admin int
		says          string
	}{
		"with a key":     {keys, "/console", 200, 200, ""},
		"its files":      {keys, "/console/console.js", 200, 200, ""},
		"no such file":   {keys, "/console/page.js", 404, 404, "nothing"},
		"with a slash":   {keys, "/console/", 307, 307, ""},
		"without a key":  {hubbub.Config{}, "/console", 403, 200, "HUBBUB_API_KEY"},
		"apart":          {apart, "/console", 404, 200, "--admin-listen"},
		"without a page": {off, "/console", 404, 200, "nothing"},
		"below a path":   {below, "/live/console", 200, 404, ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := rawtest.Start(t, c.cfg)
			public, admin := httptest.NewRecorder(), httptest.NewRecorder()
			s.ServeHTTP(public, httptest.NewRequest("GET", c.path, nil))
			s.AdminHandler().ServeHTTP(admin, httptest.NewRequest("GET", c.path, nil))
			if public.Code != c.public || admin.Code != c.admin {
				t.Errorf("%d, and %d on the admin listener, want %d and %d: %s", public.Code, admin.Code, c.public, c.admin, public.Body)
			}
			if c.says != "" && !strings.Contains(public.Body.String(), c.says) {
				t.Errorf("%s\ndoesn't say %s", public.Body, c.says)
			}
			if public.Code == 307 && public.Header().Get("Location") != "../console" {
				t.Error(public.Header())
			}
		})
	}
}
