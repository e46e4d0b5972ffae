package hubbub_test

import (
	"testing"

	"example.com/hubbub/internal/rawtest"
)

func TestMain(m *testing.M) { rawtest.Main(m) }
