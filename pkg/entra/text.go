package entra

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"
)

// pattern is a regular expression that is compiled when it is first needed. Compiling all of them
// at the start would be a quarter of a cold start.
func pattern(expr string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(expr) })
}

var guidPattern = pattern(`^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$`)

var (
	errRequired = errors.New("is required")
	errText     = errors.New("is not valid Unicode text")
	errSpace    = errors.New("has white space around it; send the value exactly as Entra shows it")
)

// CheckText refuses a value that is empty, is not valid Unicode, has white space around it, or has
// an invisible character in it. A value that does not work often has a pasted line break, and
// trimming it would hide the mistake.
//
// The error's text follows the field's name, as in "scope is required", here and in the other
// checks. It never quotes the value, which may be a secret in the wrong place.
func CheckText(s string) error {
	switch {
	case s == "":
		return errRequired
	case strings.TrimSpace(s) != s:
		return errSpace
	case strings.ContainsRune(s, utf8.RuneError):
		return errText
	}
	for _, r := range s {
		if unicode.Is(unicode.Cf, r) {
			return fmt.Errorf("contains the invisible character U+%04X, which copied text sometimes has; type the value, or copy it from elsewhere", r)
		}
	}
	return nil
}

// checkForm is CheckText for a value that must also have a form of its own.
func checkForm(s string, ok bool, otherwise string) error {
	if err := CheckText(s); err != nil || ok {
		return err
	}
	return errors.New(otherwise)
}
