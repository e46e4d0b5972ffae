package e2e

import ("testing";"fmt";"time";"strings"
)

func TestProbeChromium(t *testing.T) {
	f := startBrowser(t)
	t.Run("x", func(t *testing.T) {
	g := setStage(t, f.show)
	p := g.page()
	v := g.visitor(p, "ann", "{}")
	v.join("r")
	g.publish("r", 1, 10)
	v.hears(10)
	life := func() { fmt.Println(time.Now().Format("05.000"))
		for k, x := range scrape(t, g.s) { if strings.HasPrefix(k, "hubbub_closed") || k == "hubbub_connections" || k == "hubbub_parked_sessions" { fmt.Println(k, x) } }
	}
	life()
	fmt.Println("nav", p.visit(g.site.url+"/page.html?other"))
	time.Sleep(2*time.Second)
	life()
	g.publish("r", 11, 14)
	time.Sleep(2*time.Second)
	life()
	fmt.Println("back", p.back())
	wait(t, p, "globalThis.ready && location.search === ''")
	life()
	time.Sleep(2*time.Second)
	life()
	fmt.Printf("%+v\n", v.record())
	})
	t.Run("close", func(t *testing.T) {
	g := setStage(t, f.show)
	ann, bob := g.couple("{queue: 5000}")
	ann.publish("r", 1, 3000)
	fmt.Println(time.Now().Format("05.000"))
	ann.tab.leave()
	fmt.Println(time.Now().Format("05.000"))
	for range 5 {
	fmt.Println(len(bob.record().Got))
	fmt.Println(time.Now().Format("05.000"))
	}
	})
}
