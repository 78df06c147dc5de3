//! One file per operation: Options + Report + run().
