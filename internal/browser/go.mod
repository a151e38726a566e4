// A module of its own, so that the product does not depend on a browser's protocol.
module entra-connector/internal/browser

go 1.26.0

require (
	entra-connector v0.0.0
	github.com/chromedp/cdproto v0.159.0
	github.com/chromedp/chromedp v0.23.0
)

require (
	github.com/aws/aws-lambda-go v1.55.1 // indirect
	github.com/aws/smithy-go v1.28.8 // indirect
	github.com/go-json-experiment/json v0.0.0-20260213210345-44df1a37e875 // indirect
)

replace entra-connector => ../..
