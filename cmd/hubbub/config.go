package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"go.yaml.in/yaml/v4"
)

// configCmd takes the settings as serve does, and prints what they come to.
type configCmd struct {
	serveCmd `embed:""`
}

// Help is shown by hubbub config --help.
func (configCmd) Help() string {
	return "What it prints is a config file: hubbub config > hubbub.yaml, then hubbub serve --config hubbub.yaml. Remove what you don't set, or the defaults of today stay."
}

// Run prints every setting with its meaning, its value and where that is from.
func (c *configCmd) Run(ctx *kong.Context) error {
	if err := c.noZeros(); err != nil {
		return err
	}
	cfg := c.config(nil)
	if err := cfg.Validate(); err != nil {
		return err
	}
	cfg = cfg.Effective()
	var out bytes.Buffer
	out.WriteString(comment("The effective settings of hubbub serve. A flag counts first, then the environment, then the file, then the default."))
	for _, flag := range settings(ctx.Selected().Flags) {
		value := flag.Target.Interface()
		switch flag.Name { // 0 stands for what the machine has
		case "workers":
			value = cfg.Workers
		case "max-connections":
			value = cfg.MaxConnections
		case "max-buffered-bytes":
			value = size(cfg.MaxBufferedBytes)
		}
		text, err := yamlValue(value)
		if err != nil {
			return fmt.Errorf("%s: %w", flag.Name, err)
		}
		fmt.Fprintf(&out, "\n%s%s: %s # %s\n", comment(flag.Help), flag.Name, text, c.origin(ctx, flag))
	}
	_, err := os.Stdout.Write(out.Bytes())
	return err
}

func yamlValue(v any) (string, error) {
	switch t := v.(type) {
	case time.Duration:
		v = t.String()
	case size:
		v = t.String()
	case []string:
		if len(t) == 0 {
			return "[]", nil
		}
		node := yaml.Node{Kind: yaml.SequenceNode, Style: yaml.FlowStyle}
		for _, item := range t {
			node.Content = append(node.Content, &yaml.Node{Kind: yaml.ScalarNode, Style: yaml.DoubleQuotedStyle, Value: item})
		}
		v = &node
	}
	b, err := yaml.Dump(v, yaml.WithLineWidth(-1))
	return strings.TrimSpace(string(b)), err
}

// comment breaks a text into lines of 80 columns.
func comment(text string) string {
	var out strings.Builder
	line := "#"
	for _, word := range strings.Fields(text) {
		if len(line)+1+len(word) > 80 {
			out.WriteString(line + "\n")
			line = "#"
		}
		line += " " + word
	}
	out.WriteString(line + "\n")
	return out.String()
}

// origin says where a setting's value is from.
func (c *serveCmd) origin(ctx *kong.Context, flag *kong.Flag) string {
	for _, p := range ctx.Path {
		if p.Flag == flag && !p.Resolved {
			return "from the flag --" + flag.Name
		}
	}
	if env := envOf(flag); env != "" {
		return "from the environment: " + env
	}
	if c.file != nil {
		if v, ok := c.file.values[flag.Name]; ok {
			return fmt.Sprintf("from the file %s, line %d", c.file.path, v.line)
		}
	}
	return "the default"
}

// locate adds to an error that begins with a setting's name where that was set, unless by a flag.
func locate(ctx *kong.Context, c *serveCmd, err error) error {
	if err == nil || c == nil {
		return err
	}
	lines := strings.Split(err.Error(), "\n")
	for i, line := range lines {
		name := strings.TrimPrefix(strings.TrimPrefix(line, "hubbub: "), "--")
		name, _, _ = strings.Cut(name, " ")
		flag := byName(ctx.Selected().Flags, strings.TrimSuffix(name, ":"))
		if flag == nil {
			continue
		}
		if from, ok := strings.CutPrefix(c.origin(ctx, flag), "from the "); ok && !strings.HasPrefix(from, "flag") {
			lines[i] = line + " (" + strings.TrimPrefix(from, "environment: ") + ")"
		}
	}
	return errors.New(strings.Join(lines, "\n"))
}
