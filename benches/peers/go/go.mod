module dialback.dev/benches/peers

go 1.19
