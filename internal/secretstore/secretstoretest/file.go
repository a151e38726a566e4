package secretstoretest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// load reads the secrets of an earlier run. They count as old: no lag hides them.
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
	}
	st.pending = slices.Clone(secrets) // purge keeps those that belong there
	return nil
}

// save writes the secrets to a new file and renames it to path, so that nobody ever sees half a
// file, not even when the program is killed.
func (st *store) save(path string) (err error) {
	raw, err := json.Marshal(slices.DeleteFunc(slices.Clone(st.all), func(sec *secret) bool { return sec.gone }))
	if err != nil {
		return err
	}
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	written := path + ".new"
	if err = os.WriteFile(written, raw, 0o600); err == nil {
		err = os.Rename(written, path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(written))
	}
	st.dirty = false
	return nil
}
