"""The gRPC contract: `tcd.proto` and the code generated from it (`make proto`)."""
