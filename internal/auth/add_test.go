package auth

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"example.com/hubbub/internal/glob"
)

func grants(t *testing.T, join, publish string, chat, direct bool) *Grants {
	t.Helper()
	g, err := NewGrants(strings.Fields(join), nil, strings.Fields(publish), chat, direct)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestTwoWaysOfIdentifyingAddUp(t *testing.T) {
	soon, later := time.UnixMilli(1000), time.UnixMilli(2000)
	token := Identity{User: "ann", Expires: later, Data: []byte("1"), Rooms: []string{"a", "b"}, Grants: grants(t, "a.*", "a", true, false)}
	is := token
	if err := is.Add(Identity{User: "ann", Expires: soon, Data: []byte("2"), Rooms: []string{"b", "c"}, Grants: grants(t, "b.*", "", false, true)}); err != nil {
		t.Fatal(err)
	}
	if is.User != "ann" || is.Expires != soon || string(is.Data) != "2" || !slices.Equal(is.Rooms, []string{"a", "b", "c"}) {
		t.Errorf("it is %+v", is)
	}
	if g := is.Grants; len(g.Join) != 2 || len(g.Read) != 0 || len(g.Publish) != 1 || !g.Chat || !g.Direct {
		t.Errorf("it is granted %+v", g)
	}
	if b := is.Beside; b == nil || b.Expires != soon || string(b.Data) != "2" || !slices.Equal(b.Rooms, []string{"b", "c"}) || len(b.Grants.Join) != 1 || b.Beside != nil {
		t.Errorf("beside the token it is %+v", b)
	}
	if err := is.Add(Identity{Rooms: []string{"d"}}); err != nil || len(is.Beside.Rooms) != 3 || is.Beside.Expires != soon {
		t.Errorf("a third way: %+v, %v", is.Beside, err)
	}
	if len(token.Grants.Join) != 1 || token.Grants.Direct || len(token.Rooms) != 2 {
		t.Errorf("the token's identity was changed: %+v", token)
	}
}

func TestWhatIsNotSaidChangesNothing(t *testing.T) {
	token := Identity{User: "ann", Expires: time.UnixMilli(1000), Data: []byte("1"), Rooms: []string{"a"}, Grants: grants(t, "a", "", false, false)}
	is := token
	if err := is.Add(Identity{User: "ann"}); err != nil || is.Beside != nil || is.User != "ann" || is.Expires != token.Expires || string(is.Data) != "1" || len(is.Rooms) != 1 || is.Grants != token.Grants {
		t.Errorf("it is %+v, %v", is, err)
	}
	var nobody Identity
	if err := nobody.Add(token); err != nil || nobody.User != "ann" || nobody.Expires != token.Expires || nobody.Grants != token.Grants {
		t.Errorf("it is %+v, %v", nobody, err)
	}
	if err := nobody.Add(Identity{Expires: time.UnixMilli(9000)}); err != nil || nobody.Expires != token.Expires {
		t.Errorf("a later end counts: %v, %v", nobody.Expires, err)
	}
}

func TestAUserCantBecomeAnother(t *testing.T) {
	is := Identity{User: "ann"}
	err := is.Add(Identity{User: "bob", Rooms: []string{"a"}, Grants: grants(t, "*", "", true, true)})
	if err == nil || !strings.Contains(err.Error(), `"bob"`) || !strings.Contains(err.Error(), `"ann"`) || is.User != "ann" || is.Rooms != nil || is.Grants != nil {
		t.Errorf("it is %+v, %v", is, err)
	}
}

// Whatever is granted by one way of identifying, or by the other, is granted: of each field by itself.
func TestEachGrantOfEitherWayCounts(t *testing.T) {
	fields := reflect.TypeFor[Grants]().NumField()
	of := func(field int) *Grants {
		var g Grants
		switch v := reflect.ValueOf(&g).Elem().Field(field); v.Kind() {
		case reflect.Bool:
			v.SetBool(true)
		default:
			v.Set(reflect.ValueOf([]*glob.Template{glob.NewTemplate("a")}))
		}
		return &g
	}
	granted := func(g *Grants) (all []string) {
		v := reflect.ValueOf(g).Elem()
		for i := range fields {
			if !v.Field(i).IsZero() {
				all = append(all, v.Type().Field(i).Name)
			}
		}
		return all
	}
	for a := range fields {
		for b := range fields {
			is := Identity{Grants: of(a)}
			if err := is.Add(Identity{Grants: of(b)}); err != nil {
				t.Fatal(err)
			}
			want := granted(of(min(a, b)))
			if a != b {
				want = append(want, granted(of(max(a, b)))...)
			}
			if got := granted(is.Grants); !slices.Equal(got, want) {
				t.Errorf("%v and %v are %v", granted(of(a)), granted(of(b)), got)
			}
		}
	}
}
