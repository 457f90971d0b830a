// Package export writes what a discovery station opened in the forms that others read: .eml files, mbox, and load files, DAT and
// CSV. Natives are the exact octets as received.
//
// An export is a folder with volumes, VOL001 and on, of a bounded number of items. A volume appears whole or not at all, so an
// export that was cut short goes on where it was.
package export

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"golang.org/x/sync/errgroup"

	"dimegate/internal/safefile"
	"dimegate/vault/discovery"
)

// A Source is what is exported: a part of discovery.Source.
type Source interface {
	Items() []discovery.Item
	Open(ctx context.Context, number int) (io.ReadCloser, error)
}

// A Format is a form of export.
type Format string

const (
	EML  Format = "eml"  // NATIVES/CONTROL.eml, a file an item
	MBox Format = "mbox" // one file a volume: mboxrd
	DAT  Format = "dat"  // load file: Concordance
	CSV  Format = "csv"  // load file: RFC 4180
)

// Formats are all.
var Formats = []Format{EML, MBox, DAT, CSV}

// Options say what is written where.
type Options struct {
	Folder  string // made when it is not there
	Formats []Format
	Prefix  string // of control numbers: letters, digits, '-' and '_', at most 32; default "DG"
	// VolumeItems is how many items a volume has at most; default 10,000.
	VolumeItems int
	Progress    func(done, total int) // may be nil
}

// A Report says what an export has.
type Report struct {
	Folder   string `json:"folder"`
	Volumes  int    `json:"volumes"`
	Kept     int    `json:"kept"` // of them, whole from an earlier run
	Items    int    `json:"items"`
	Withheld int    `json:"withheld"` // of the items: listed in load files, without a native
	Octets   int64  `json:"octets"`   // of natives
}

const defaultVolume = 10_000

var prefixes = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

// ErrOther is returned for a folder that has volumes of another export.
var ErrOther = errors.New("the folder has another export, or one of other items or formats: name an empty one")

// Write writes an export, or what is missing of it. Memory: the list of items and one row.
func Write(ctx context.Context, src Source, o Options) (*Report, error) {
	if o.Prefix == "" {
		o.Prefix = "DG"
	}
	if o.VolumeItems <= 0 {
		o.VolumeItems = defaultVolume
	}
	if !prefixes.MatchString(o.Prefix) {
		return nil, fmt.Errorf("export: %q is no prefix of control numbers: letters, digits, - and _, at most 32", o.Prefix)
	}
	if len(o.Formats) == 0 {
		return nil, errors.New("export: no format")
	}
	for _, f := range o.Formats {
		if !slices.Contains(Formats, f) {
			return nil, fmt.Errorf("export: unknown format %q: one of %v", f, Formats)
		}
	}
	if err := os.MkdirAll(o.Folder, 0o700); err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	items := src.Items()
	r := &Report{Folder: o.Folder, Items: len(items)}
	for first := 0; first < len(items); first += o.VolumeItems {
		v := &volume{o: o, src: src, n: r.Volumes + 1, items: items[first:min(first+o.VolumeItems, len(items))], done: first, total: len(items)}
		list, kept, err := v.make(ctx)
		if err != nil {
			return nil, err
		}
		r.Volumes++
		r.Octets += list.Octets
		r.Withheld += list.Withheld
		if kept {
			r.Kept++
		}
	}
	return r, nil
}

// A volume is one in the making.
type volume struct {
	o           Options
	src         Source
	n           int
	items       []discovery.Item
	done, total int
	syncs       errgroup.Group // natives on their way to stable storage: side by side they share the disk's commits
}

// syncsAtOnce bounds the natives that are brought to stable storage at one time.
const syncsAtOnce = 32

// A volumeList is volume.json: what a volume was made of.
type volumeList struct {
	Source   string   `json:"source"` // of the items with their records and marks, formats and prefix
	Formats  []Format `json:"formats"`
	First    string   `json:"first"`
	Last     string   `json:"last"`
	Items    int      `json:"items"`
	Withheld int      `json:"withheld"`
	Octets   int64    `json:"octets"`
}

const listName = "volume.json"

func (v *volume) name() string { return fmt.Sprintf("VOL%03d", v.n) }

// control is the control number of an item.
func (v *volume) control(number int) string { return fmt.Sprintf("%s%08d", v.o.Prefix, number) }

// digest names what the volume is made of, to know it again.
func (v *volume) digest() string {
	h := sha256.New()
	fmt.Fprintf(h, "%q %q\n", v.o.Formats, v.o.Prefix)
	for _, i := range v.items {
		fmt.Fprintf(h, "%d %v %d %q %q\n", i.Number, i.Record, i.Octets, i.Marks, i.Custodians)
		h.Write(i.Content[:])
		h.Write(binary.BigEndian.AppendUint64(nil, uint64(len(i.Envelopes))))
	}
	return hex.EncodeToString(h.Sum(nil))
}

// make writes the volume, unless it is there: into a folder beside, which gets its name when all of it is on stable storage.
func (v *volume) make(ctx context.Context) (list volumeList, kept bool, err error) {
	final := filepath.Join(v.o.Folder, v.name())
	b, err := safefile.Read(filepath.Join(final, listName), 1<<20)
	switch {
	case err == nil:
		if err := json.Unmarshal(b, &list); err != nil || list.Source != v.digest() {
			return list, false, fmt.Errorf("export: %s: %w", final, ErrOther)
		}
		v.progress(len(v.items))
		return list, true, nil
	case !errors.Is(err, fs.ErrNotExist):
		return list, false, fmt.Errorf("export: %w", err)
	}
	if _, err := os.Lstat(final); err == nil {
		return list, false, fmt.Errorf("export: %s: %w", final, ErrOther)
	}
	part := final + ".part"
	if err := os.RemoveAll(part); err != nil {
		return list, false, fmt.Errorf("export: %w", err)
	}
	if err := os.Mkdir(part, 0o700); err != nil {
		return list, false, fmt.Errorf("export: %w", err)
	}
	if list, err = v.write(ctx, part); err != nil {
		return list, false, err
	}
	if err := errors.Join(safefile.SyncDir(part), os.Rename(part, final), safefile.SyncDir(v.o.Folder)); err != nil {
		return list, false, fmt.Errorf("export: %w", err)
	}
	return list, false, nil
}

func (v *volume) progress(n int) {
	if v.o.Progress != nil {
		v.o.Progress(v.done+n, v.total)
	}
}

func (v *volume) has(f Format) bool { return slices.Contains(v.o.Formats, f) }

func (v *volume) write(ctx context.Context, dir string) (volumeList, error) {
	list := volumeList{Source: v.digest(), Formats: v.o.Formats, Items: len(v.items),
		First: v.control(v.items[0].Number), Last: v.control(v.items[len(v.items)-1].Number)}
	out, err := v.create(dir)
	if err != nil {
		return list, err
	}
	defer out.abandon()
	v.syncs.SetLimit(syncsAtOnce)
	defer v.syncs.Wait()
	for n, item := range v.items {
		if err := ctx.Err(); err != nil {
			return list, err
		}
		row := newRow(v.control(item.Number), item)
		if item.Withheld() {
			list.Withheld++
		}
		if err := v.item(ctx, dir, out, item, &row); err != nil {
			return list, fmt.Errorf("export: item %d: %w", item.Number, err)
		}
		if !item.Withheld() {
			list.Octets += row.octets
		}
		for _, l := range out.loads {
			if err := l.row(row); err != nil {
				return list, fmt.Errorf("export: %w", err)
			}
		}
		v.progress(n + 1)
	}
	if err := errors.Join(v.syncs.Wait(), out.finish()); err != nil {
		return list, fmt.Errorf("export: %w", err)
	}
	if v.has(EML) {
		if err := safefile.SyncDir(filepath.Join(dir, nativeFolder)); err != nil {
			return list, fmt.Errorf("export: %w", err)
		}
	}
	b, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return list, err
	}
	return list, safefile.Write(filepath.Join(dir, listName), append(b, '\n'))
}

const nativeFolder = "NATIVES"

// item reads an item once: into its native, the mbox, and what its row tells of it.
func (v *volume) item(ctx context.Context, dir string, out *outputs, item discovery.Item, row *row) error {
	body, err := v.src.Open(ctx, item.Number)
	if err != nil {
		return err
	}
	defer body.Close()
	var sinks []io.Writer
	var native *os.File
	if v.has(EML) && !item.Withheld() {
		name := row.control + ".eml"
		if native, err = os.OpenFile(filepath.Join(dir, nativeFolder, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600); err != nil {
			return err
		}
		defer func() {
			if native != nil {
				native.Close()
			}
		}()
		row.native = v.name() + "/" + nativeFolder + "/" + name
		sinks = append(sinks, native)
	}
	var box *mboxMessage
	if out.mbox != nil && !item.Withheld() {
		if box, err = newMboxMessage(out.mbox, item); err != nil {
			return err
		}
		sinks = append(sinks, box)
	}
	if err := row.read(io.TeeReader(body, io.MultiWriter(sinks...))); err != nil {
		return err
	}
	if row.octets != item.Octets {
		return fmt.Errorf("has %d octets, the station says %d", row.octets, item.Octets)
	}
	if box != nil {
		if err := box.Close(); err != nil {
			return err
		}
	}
	if native != nil {
		f := native
		native = nil
		v.syncs.Go(func() error { return errors.Join(f.Sync(), f.Close()) })
	}
	return nil
}
