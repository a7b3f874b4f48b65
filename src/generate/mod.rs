//! From prompts to hours of signal: window policy, sampling, and what is streamed to disk.
