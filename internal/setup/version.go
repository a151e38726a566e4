package setup

// version and commit name the build. The Makefile sets them when it links a function; a plain
// go build leaves these values. They do not come from Go's own VCS stamp, because SAM may build a
// copy of the source that has no repository.
var (
	version = "dev"
	commit  = "unknown"
)

// product is how the functions name themselves to Entra and AWS, as in "entra-connector/1.2.3".
const product = "entra-connector"
