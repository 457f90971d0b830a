package export

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
)

// outputs are a volume's files that have all items in them.
type outputs struct {
	mbox    *bufio.Writer // nil: none
	loads   []loadFile
	buffers []*bufio.Writer
	files   []*os.File
}

// create makes the files of a volume.
func (v *volume) create(dir string) (*outputs, error) {
	out := new(outputs)
	open := func(ext string) (*bufio.Writer, error) {
		f, err := os.OpenFile(filepath.Join(dir, v.name()+ext), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return nil, err
		}
		w := bufio.NewWriterSize(f, 64<<10)
		out.files, out.buffers = append(out.files, f), append(out.buffers, w)
		return w, nil
	}
	for _, format := range v.o.Formats {
		if format == EML {
			if err := os.Mkdir(filepath.Join(dir, nativeFolder), 0o700); err != nil {
				out.abandon()
				return nil, err
			}
			continue
		}
		w, err := open("." + string(format))
		if err != nil {
			out.abandon()
			return nil, err
		}
		switch format {
		case MBox:
			out.mbox = w
		case DAT:
			out.loads = append(out.loads, newDAT(w))
		case CSV:
			out.loads = append(out.loads, newCSV(w))
		}
	}
	return out, nil
}

// finish brings all to stable storage.
func (o *outputs) finish() error {
	var errs []error
	for _, l := range o.loads {
		errs = append(errs, l.end())
	}
	for i, w := range o.buffers {
		errs = append(errs, w.Flush(), o.files[i].Sync(), o.files[i].Close())
	}
	o.files = nil
	return errors.Join(errs...)
}

// abandon closes what finish did not.
func (o *outputs) abandon() {
	for _, f := range o.files {
		f.Close()
	}
}
