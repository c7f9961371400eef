"""One tariff per pricing model, in a file named by its wire id. Each is a pure function of prices and usage."""
