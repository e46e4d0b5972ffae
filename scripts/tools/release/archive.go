package main

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"io"
	"io/fs"
	"os"
	"time"
)

// entry is a file of an archive.
type entry struct {
	name, from string
	mode       fs.FileMode
}

// create makes a file by write, and says of any error that came before its bytes were all there.
func create(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	if err := write(f); err != nil {
		f.Close()
		return err
	}
	return f.Close()
}

// gzipped has neither a name nor a time in its head.
func gzipped(w io.Writer, write func(io.Writer) error) error {
	z, err := gzip.NewWriterLevel(w, gzip.BestCompression)
	if err != nil {
		return err
	}
	if err := write(z); err != nil {
		return err
	}
	return z.Close()
}

// tarball has its entries in their order, all of one time and of root's.
func tarball(path string, files []entry, at time.Time) error {
	return create(path, func(w io.Writer) error {
		return gzipped(w, func(w io.Writer) error {
			t := tar.NewWriter(w)
			for _, f := range files {
				b, err := os.ReadFile(f.from)
				if err != nil {
					return err
				}
				h := &tar.Header{Name: f.name, Mode: int64(f.mode), Size: int64(len(b)), ModTime: at, Uname: "root", Gname: "root", Format: tar.FormatPAX}
				if err := t.WriteHeader(h); err != nil {
					return err
				}
				if _, err := t.Write(b); err != nil {
					return err
				}
			}
			return t.Close()
		})
	})
}

func zipped(path string, files []entry, at time.Time) error {
	return create(path, func(w io.Writer) error {
		z := zip.NewWriter(w)
		for _, f := range files {
			b, err := os.ReadFile(f.from)
			if err != nil {
				return err
			}
			h := &zip.FileHeader{Name: f.name, Method: zip.Deflate, Modified: at}
			h.SetMode(f.mode)
			to, err := z.CreateHeader(h)
			if err != nil {
				return err
			}
			if _, err := to.Write(b); err != nil {
				return err
			}
		}
		return z.Close()
	})
}

// compress puts path.gz beside a file.
func compress(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return create(path+".gz", func(w io.Writer) error {
		return gzipped(w, func(w io.Writer) error {
			_, err := w.Write(b)
			return err
		})
	})
}
