// Package cgroup finds how much memory the control group of a process allows it. The kernel kills a process at that
// limit, and Go's collector doesn't know it. Both versions of control groups, and a machine that has both.
//
// It is pure: the caller reads the files.
package cgroup

import (
	"path"
	"strconv"
	"strings"
)

// none is from where on a limit is none: version 1 writes the largest multiple of a page below 2^63.
const none = 1 << 62

// Memory is the least memory limit of the process's own group and of those around it, in bytes, and the file that has
// it; ok is false when there is none. self and mounts are what /proc/self/cgroup and /proc/self/mountinfo hold; read
// gives a file's text.
func Memory(self, mounts string, read func(file string) (string, error)) (limit int64, file string, ok bool) {
	group, kind, name := memoryGroup(self)
	if group == "" {
		return 0, "", false
	}
	root, at, ok := mountOf(mounts, kind)
	if !ok {
		return 0, "", false
	}
	limit = none
	// What the mount shows begins at root. In a container the process's own path may lie outside of that.
	inside, ok := within(group, root)
	if !ok {
		inside = "/"
	}
	for {
		f := path.Join(at, inside, name)
		if text, err := read(f); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64); err == nil && n < limit { // "max" is no number
				limit, file = n, f
			}
		}
		if inside == "/" {
			return limit, file, limit < none
		}
		inside = path.Dir(inside)
	}
}

// memoryGroup is the path of the group that bounds the process's memory, the type of its file system, and the name of
// its limit's file. cgroups(7): lines of hierarchy:controllers:path, that of version 2 with neither number nor names.
func memoryGroup(self string) (group, kind, name string) {
	for line := range strings.Lines(self) {
		number, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ":")
		controllers, at, ok := strings.Cut(rest, ":")
		switch {
		case !ok:
		case listed(controllers, "memory"): // a controller is in one version at a time
			return at, "cgroup", "memory.limit_in_bytes"
		case number == "0" && controllers == "":
			group, kind, name = at, "cgroup2", "memory.max"
		}
	}
	return group, kind, name
}

// mountOf finds where a kind of group is mounted, and which group is its root. proc_pid_mountinfo(5): the fourth and
// fifth fields are root and mount point; after a field "-" come the type, the source and the options.
func mountOf(mounts, kind string) (root, at string, ok bool) {
	for line := range strings.Lines(mounts) {
		before, after, found := strings.Cut(line, " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !found || len(left) < 5 || len(right) < 3 || right[0] != kind {
			continue
		}
		if kind == "cgroup2" || listed(right[2], "memory") {
			return unescape(left[3]), unescape(left[4]), true
		}
	}
	return "", "", false
}

// within is the path of group below root.
func within(group, root string) (inside string, ok bool) {
	if strings.HasPrefix(group, "/..") { // beyond what this process may see
		return "", false
	}
	if root == "/" {
		return path.Clean("/" + group), true
	}
	inside, ok = strings.CutPrefix(group, root)
	if !ok || inside != "" && inside[0] != '/' {
		return "", false
	}
	return path.Clean("/" + inside), true
}

func listed(list, item string) bool {
	for one := range strings.SplitSeq(list, ",") {
		if one == item {
			return true
		}
	}
	return false
}

// unescape undoes mountinfo's \040 for a space, and its like.
func unescape(s string) string {
	for _, c := range [...][2]string{{`\040`, " "}, {`\011`, "\t"}, {`\012`, "\n"}, {`\134`, `\`}} {
		s = strings.ReplaceAll(s, c[0], c[1])
	}
	return s
}
