package main

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"
)

// variable is one of the environment whose name begins with HUBBUB_.
type variable struct{ name, setting, value string }

// kubernetes are the variables that Kubernetes sets for services whose names begin with hubbub.
var kubernetes = regexp.MustCompile(`^(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// variables are those that may be meant for us.
func variables(environ []string) (all []variable) {
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if rest, ok := strings.CutPrefix(name, "HUBBUB_"); ok && !kubernetes.MatchString(rest) {
			all = append(all, variable{name, strings.ToLower(strings.ReplaceAll(rest, "_", "-")), value})
		}
	}
	return all
}

// checkEnvironment holds every variable against the flags, those too that a flag counts before. The error names all
// that are wrong. A name that is no setting's is an error where it looks like one that was mistyped; else it may be
// another program's.
func checkEnvironment(environ []string, flags []*kong.Flag) (unknown []string, err error) {
	flagOf := map[string]*kong.Flag{}
	for _, f := range flags {
		for _, name := range f.Envs {
			flagOf[name] = f
		}
	}
	var errs []error
	for _, v := range variables(environ) {
		flag := flagOf[v.name]
		if v.name == "HUBBUB_URL" || v.name == "HUBBUB_TOKEN" {
			continue // the other commands'
		}
		if flag == nil {
			if like := nearest(v.name, slices.Sorted(maps.Keys(flagOf))); like != "" {
				errs = append(errs, fmt.Errorf("%s: there is no such setting; did you mean %s?", v.name, like))
			} else {
				unknown = append(unknown, v.name)
			}
			continue
		}
		if v.value == "" {
			errs = append(errs, fmt.Errorf("%s: it is set, and empty; unset it for the default", v.name))
		} else if err := checkText(flag, v.value); err != nil {
			errs = append(errs, fmt.Errorf("%s=%s: %w", v.name, v.value, err))
		}
	}
	return unknown, errors.Join(errs...)
}

// checkText says whether a flag takes a text.
func checkText(flag *kong.Flag, text string) error {
	scratch := reflect.New(flag.Target.Type()).Elem()
	if err := flag.Mapper.Decode(&kong.DecodeContext{Value: flag.Value, Scan: kong.Scan().PushTyped(text, kong.FlagValueToken)}, scratch); err != nil {
		return err
	}
	if flag.Enum != "" && !flag.EnumMap()[text] {
		return fmt.Errorf("%q is none of %s", text, strings.ReplaceAll(flag.Enum, ",", ", "))
	}
	return nil
}

// checkEmpty refuses flags that were given without a value, as by a script's variable that isn't set.
func checkEmpty(ctx *kong.Context) error {
	for _, p := range ctx.Path {
		if p.Flag == nil || p.Resolved {
			continue
		}
		switch v := reflect.ValueOf(ctx.FlagValue(p.Flag)); v.Kind() {
		case reflect.String, reflect.Slice:
			if v.Len() == 0 {
				return fmt.Errorf("--%s: its value is empty; leave the flag out for the default", p.Flag.Name)
			}
		}
	}
	return nil
}

// nearest is the name that was probably meant, or empty: a letter or two are wrong, missing, doubled or swapped.
func nearest(name string, all []string) (found string) {
	plain := func(name string) string {
		return strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, "HUBBUB_"), "_", "-"))
	}
	name = plain(name)
	best := max(1, len(name)/5) + 1
	for _, n := range all {
		if d := distance(name, plain(n)); d < best {
			found, best = n, d
		}
	}
	return found
}

// distance is how many letters must be put in, taken out, changed, or swapped with the next to make b of a.
func distance(a, b string) int {
	before, last, now := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		now[0] = i + 1
		for j := range len(b) {
			change := last[j]
			if a[i] != b[j] {
				change++
			}
			now[j+1] = min(change, last[j+1]+1, now[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				now[j+1] = min(now[j+1], before[j-1]+1)
			}
		}
		before, last, now = last, now, before
	}
	return last[len(b)]
}
