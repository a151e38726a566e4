// A module of its own, so that the product does not depend on a browser's protocol.
module entra-connector/internal/browser

go 1.26.0

require (
	entra-connector v0.0.0
	github.com/chromedp/chromedp v0.23.0
)

replace entra-connector => ../..
