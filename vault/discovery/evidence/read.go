package evidence

import (
	"archive/zip"
	"bufio"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// A Fault is what is wrong with a package: the first thing that was found.
type Fault struct {
	File   string // within the package; "" for the package as a whole
	Reason string
	Err    error // of the check that failed; may be nil
}

func (f *Fault) Error() string {
	s := f.Reason
	if f.Err != nil {
		s += ": " + f.Err.Error()
	}
	if f.File == "" {
		return "the package " + s
	}
	return f.File + " " + s
}

func (f *Fault) Unwrap() error { return f.Err }

func fault(file, format string, a ...any) error {
	return &Fault{File: file, Reason: fmt.Sprintf(format, a...)}
}

// Bounds of what is read.
const (
	maxFiles    = 8_000_000 // of the largest case: a message, its proofs, and exhibits
	maxName     = 200
	maxDocument = 64 << 20 // a JSON document
	maxSmall    = 1 << 20  // a record, a statement, a note
	maxLine     = 4 << 10
	maxDepth    = 8 // folders in a name
)

// A container is a package's ZIP file.
type container struct {
	base  string
	files map[string]*zip.File
	names []string // ascending
}

// openContainer reads the directory of a ZIP file and refuses what can be read in two ways or swells: names that are no plain
// paths, two files of one name, compression, files that overlap.
func openContainer(r io.ReaderAt, size int64) (*container, error) {
	if err := checkEnd(r, size); err != nil {
		return nil, err
	}
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, &Fault{Reason: "is no ZIP file, or a damaged one", Err: err}
	}
	if len(z.File) == 0 || len(z.File) > maxFiles {
		return nil, fault("", "has %d files", len(z.File))
	}
	c := &container{files: make(map[string]*zip.File, len(z.File))}
	c.base, _, _ = strings.Cut(z.File[0].Name, "/")
	c.base += "/"
	left := uint64(size)
	for _, f := range z.File {
		name, ok := strings.CutPrefix(f.Name, c.base)
		switch {
		case !ok || !plain(name):
			return nil, fault(printable(f.Name), "has a name that no file of a package has")
		case c.files[name] != nil:
			return nil, fault(name, "is there twice")
		case f.Method != zip.Store || f.Flags&1 != 0:
			return nil, fault(name, "is compressed or encrypted: a package stores its files as they are")
		case f.CompressedSize64 != f.UncompressedSize64 || f.UncompressedSize64 > left:
			return nil, fault(name, "has a length that cannot be: files overlap")
		}
		left -= f.UncompressedSize64
		c.files[name] = f
		c.names = append(c.names, name)
	}
	slices.Sort(c.names)
	return c, c.checkHeaders(r, z.File)
}

// checkHeaders compares the header before each file with the directory, and lets nothing stand between: some read the one, some the
// other.
func (c *container) checkHeaders(r io.ReaderAt, files []*zip.File) error {
	type place struct {
		f  *zip.File
		at int64
	}
	var places []place
	for _, f := range files {
		at, err := f.DataOffset()
		if err != nil {
			return &Fault{strings.TrimPrefix(f.Name, c.base), "has no header", err}
		}
		places = append(places, place{f, at})
	}
	slices.SortFunc(places, func(a, b place) int { return cmp.Compare(a.at, b.at) })
	end := int64(0)
	for _, p := range places {
		name := strings.TrimPrefix(p.f.Name, c.base)
		b := make([]byte, max(0, min(p.at-end, maxHeader)))
		if _, err := r.ReadAt(b, end); err != nil {
			return readFault(name, err)
		}
		if int64(len(b)) != p.at-end || !slices.ContainsFunc(descriptors, func(n int) bool { return n <= len(b) && isHeader(b[n:], p.f.Name) }) {
			return fault(name, "has another name in its own header, or something stands before it")
		}
		end = p.at + int64(p.f.UncompressedSize64)
	}
	return nil
}

// descriptors are the lengths of what may stand behind a file's octets: nothing, or its length and checksum.
var descriptors = []int{0, 12, 16, 20, 24}

const (
	localHeader = 30
	maxHeader   = 24 + localHeader + maxName + 100 + 64<<10
)

// isHeader tells whether b is the header of a file of this name, and nothing else.
func isHeader(b []byte, name string) bool {
	if len(b) < localHeader || string(b[:4]) != "PK\x03\x04" {
		return false
	}
	n, extra := int(binary.LittleEndian.Uint16(b[26:])), int(binary.LittleEndian.Uint16(b[28:]))
	return len(b) == localHeader+n+extra && string(b[localHeader:localHeader+n]) == name
}

// checkEnd looks at the number of files that the end of the directory tells, before anyone makes room for them.
func checkEnd(r io.ReaderAt, size int64) error {
	const end, locator = 22, 20
	b := make([]byte, end)
	if size < end {
		return fault("", "is no ZIP file: it is too short")
	}
	if _, err := r.ReadAt(b, size-end); err != nil {
		return err
	}
	if string(b[:4]) != "PK\x05\x06" || binary.LittleEndian.Uint16(b[20:]) != 0 {
		return fault("", "is no ZIP file, is cut short, or has something behind its end")
	}
	n := uint64(binary.LittleEndian.Uint16(b[10:]))
	if l := make([]byte, locator); size >= end+locator {
		if _, err := r.ReadAt(l, size-end-locator); err != nil {
			return err
		}
		if string(l[:4]) == "PK\x06\x07" {
			at, rec := binary.LittleEndian.Uint64(l[8:]), make([]byte, 40)
			if at > uint64(size) {
				return fault("", "is no ZIP file, or a damaged one")
			}
			if _, err := r.ReadAt(rec, int64(at)); err != nil {
				return fault("", "is no ZIP file, or a damaged one")
			}
			n = max(n, binary.LittleEndian.Uint64(rec[32:]))
		}
	}
	if n > maxFiles {
		return fault("", "says that it has %d files", n)
	}
	return nil
}

// plain reports whether a name is one of those that a package can have: folders and a file, of letters, digits, '.', '-' and '_'.
func plain(name string) bool {
	if len(name) > maxName || strings.Count(name, "/") > maxDepth {
		return false
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == "" || part[0] == '.' {
			return false
		}
		for _, r := range part {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '.' && r != '-' && r != '_' {
				return false
			}
		}
	}
	return true
}

// printable is a name from outside, as it may be shown.
func printable(name string) string {
	return fmt.Sprintf("%.200q", name)
}

func (c *container) open(name string) (io.ReadCloser, error) {
	f := c.files[name]
	if f == nil {
		return nil, fault(name, "is not there")
	}
	r, err := f.Open()
	if err != nil {
		return nil, &Fault{name, "cannot be read", err}
	}
	return r, nil
}

// read is a whole file of at most limit octets.
func (c *container) read(name string, limit int) ([]byte, error) {
	r, err := c.open(name)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, readFault(name, err)
	}
	if len(b) > limit {
		return nil, fault(name, "is longer than %d octets", limit)
	}
	return b, nil
}

// TagManifest is the octets whose digest D("export", …) the requester signed.
func TagManifest(r io.ReaderAt, size int64) ([]byte, error) {
	c, err := openContainer(r, size)
	if err != nil {
		return nil, err
	}
	return c.read(fileTags+algorithms[1]+".txt", maxSmall)
}

// readFault tells damage from trouble of the machine's own.
func readFault(name string, err error) error {
	if errors.Is(err, zip.ErrChecksum) || errors.Is(err, zip.ErrFormat) || errors.Is(err, io.ErrUnexpectedEOF) {
		return &Fault{name, "is damaged", err}
	}
	return fmt.Errorf("%s: %w", name, err)
}

// under are the names that begin so, ascending.
func (c *container) under(prefix string) []string {
	first, _ := slices.BinarySearch(c.names, prefix)
	last := first
	for last < len(c.names) && strings.HasPrefix(c.names[last], prefix) {
		last++
	}
	return c.names[first:last]
}

// A listing is a manifest, read beside the files that it lists.
type listing struct {
	name string
	r    *bufio.Reader
	file io.Closer
}

func (c *container) listing(name string) (*listing, error) {
	f, err := c.open(name)
	if err != nil {
		return nil, err
	}
	return &listing{name, bufio.NewReaderSize(f, maxLine), f}, nil
}

// next reads a line; "" at the end.
func (l *listing) next() (sum, name string, err error) {
	b, err := l.r.ReadSlice('\n')
	if errors.Is(err, io.EOF) && len(b) == 0 {
		return "", "", nil
	}
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, bufio.ErrBufferFull) {
		return "", "", readFault(l.name, err)
	}
	sum, name, ok := strings.Cut(strings.TrimSuffix(string(b), "\n"), "  ")
	if err != nil || !ok || !plain(name) {
		return "", "", fault(l.name, "has a line that is none of a manifest's")
	}
	return sum, name, nil
}

// expect compares the next line with a file that is there.
func (l *listing) expect(sum, name string) error {
	has, listed, err := l.next()
	switch {
	case err != nil:
		return err
	case listed == "" || listed > name:
		return fault(name, "was added: %s does not list it", l.name)
	case listed < name:
		return fault(listed, "is missing, or stands twice in %s", l.name)
	case has != sum:
		return fault(name, "was changed: it is not what %s says", l.name)
	}
	return nil
}

// end expects nothing more.
func (l *listing) end() error {
	_, listed, err := l.next()
	if err == nil && listed != "" {
		err = fault(listed, "is missing: %s lists it", l.name)
	}
	return err
}
