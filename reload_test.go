package hubbub

import (
	"reflect"
	"testing"
)

// Each field of Config is placed: it reloads or is kept.
func TestEverySettingReloadsOrIsKept(t *testing.T) {
	var c Config
	placed := map[uintptr]string{}
	for _, s := range settingsOf() {
		v := reflect.ValueOf(s.of(&c))
		placed[v.Pointer()] = s.name
		same(v.Elem(), v.Elem()) // which takes every kind that there is
	}
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		for i := range v.NumField() {
			f, name := v.Field(i), path+"."+v.Type().Field(i).Name
			if f.Kind() == reflect.Struct && isGroup(f.Type()) {
				walk(name, f)
			} else if placed[f.Addr().Pointer()] == "" {
				t.Errorf("%s is neither reloaded nor kept: place it in settingsOf", name)
			}
		}
	}
	walk("Config", reflect.ValueOf(&c).Elem())
}

// isGroup says of a type that its fields are settings of their own.
func isGroup(t reflect.Type) bool {
	return t != reflect.TypeFor[Hooks]() && t != reflect.TypeFor[Rate]()
}
