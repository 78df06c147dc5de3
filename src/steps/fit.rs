//! The fine-tuning loop: epochs, schedule, validation, early stop.
