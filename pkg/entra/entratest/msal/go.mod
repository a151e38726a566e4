// A module of its own, so that the product does not depend on MSAL: see msal_test.go.
module entra-connector/pkg/entra/entratest/msal

go 1.26.0

require entra-connector v0.0.0

require (
	github.com/AzureAD/microsoft-authentication-library-for-go v1.10.1
	github.com/golang-jwt/jwt/v5 v5.3.1
	github.com/google/uuid v1.3.0 // indirect
	github.com/kylelemons/godebug v1.1.0 // indirect
	golang.org/x/sync v0.24.0 // indirect
)

replace entra-connector => ../../../..
