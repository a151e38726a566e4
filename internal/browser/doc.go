// Package browser tests the page for customers in a real browser. The tests need Chromium; `make
// e2e` runs them.
package browser
