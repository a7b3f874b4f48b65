//! Comparing recordings: statistics, their ceilings, figures and the report. Knows nothing of models and devices.
