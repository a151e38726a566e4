package secretstoretest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// load reads the secrets of a former run. They count as old: no lag hides them.
func (st *store) load(path string) error {
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var secrets []*secret
	if err := json.Unmarshal(raw, &secrets); err != nil {
		return fmt.Errorf("%s is not a file of the stand-in Secrets Manager", path) // the parser's error may quote a value
	}
	for _, sec := range secrets {
		st.enter(sec)
		st.remember(sec, time.Time{})
		if sec.pending() {
			st.awaitDeletion(sec)
		}
	}
	return nil
}

// save writes the secrets to a new file and puts it in the old one's place, so that a reader, or a run that is killed,
// never sees half of it.
func (st *store) save(path string) (err error) {
	live := make([]*secret, 0, len(st.names))
	for _, sec := range st.all {
		if !sec.gone {
			live = append(live, sec)
		}
	}
	raw, err := json.Marshal(live)
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(raw)
	if err := errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	st.dirty = false
	return nil
}
