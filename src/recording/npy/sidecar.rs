//! The `.json` file beside an array of ours: what the array itself cannot say.

use super::super::{ChannelKind, Info};
use super::Layout;
use crate::error::{Error, Kind, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Name of the format; a `.json` file without it is somebody else's and is left alone.
const FORMAT: &str = "gpt2meg-npy";

/// The content of the file.
#[derive(Serialize, Deserialize)]
pub struct Sidecar {
    format: String,
    version: u32,
    /// Which axis of the array is time.
    pub layout: Layout,
    /// The unit of each kind of channel that occurs.
    units: BTreeMap<String, String>,
    /// Everything else, the events excepted: they are a table of their own.
    pub info: Info,
}

/// `x.json` for `x.npy`.
pub fn path(array: &Path) -> PathBuf {
    array.with_extension("json")
}

/// Reads the file beside `array`, if there is one and it is ours.
pub fn read(array: &Path) -> Result<Option<Sidecar>> {
    let path = path(array);
    let text = match std::fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io(e, "read the description of the array", &path)),
    };
    let wrong = |e: serde_json::Error| {
        let hint = "Remove or rename it, and give --rate and --layout";
        Error::new(Kind::Corrupt, format!("the description of the array is damaged: {e}")).at(&path).hint(hint)
    };
    let value: serde_json::Value = serde_json::from_slice(&text).map_err(wrong)?;
    if value.get("format").and_then(|f| f.as_str()) != Some(FORMAT) {
        return Ok(None);
    }
    serde_json::from_value(value).map_err(wrong).map(Some)
}

/// The content of the file beside an array.
pub fn text(info: &Info, layout: Layout) -> Result<Vec<u8>> {
    let unit = |kind: ChannelKind| (format!("{kind:?}").to_lowercase(), kind.unit().to_string());
    let units = info.channels.iter().map(|channel| unit(channel.kind)).collect();
    let info = Info { events: Vec::new(), ..info.clone() };
    let content = Sidecar { format: FORMAT.into(), version: 1, layout, units, info };
    serde_json::to_vec_pretty(&content)
        .map_err(|e| Error::new(Kind::Internal, format!("cannot describe the array: {e}")))
}
