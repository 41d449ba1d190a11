"""The doors that speak HTTP. `app` puts the routes together and holds the only map from errors to status codes; one
module per kind of visitor beside it."""
