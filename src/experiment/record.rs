//! What has become of each part: `parts/NAME.json` in the experiment's folder, and what the command said in `NAME.log`.

use super::parts::Part;
use crate::error::{Error, Kind, Result};
use crate::storage::atomic;
use crate::train::run_folder::{read_json, write_json};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What is known of a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// What it depended on.
    pub key: String,
    /// False while it runs, and after it was interrupted.
    pub finished: bool,
    /// Time it took so far, s.
    pub seconds: f64,
    /// The command, as a shell takes it.
    pub command: String,
}

/// The folder of the records.
pub const FOLDER: &str = "parts";

fn path(folder: &Path, part: &Part, extension: &str) -> PathBuf {
    folder.join(FOLDER).join(format!("{}.{extension}", part.name))
}

/// The file that receives what the part's command says.
pub fn log_path(folder: &Path, part: &Part) -> PathBuf {
    path(folder, part, "log")
}

/// What is known of a part that was begun with this key; a record that cannot be read is none.
pub fn of(folder: &Path, part: &Part) -> Option<Record> {
    let record: Record = read_json(&path(folder, part, "json")).ok()?;
    (record.key == part.key).then_some(record)
}

/// Whether there is nothing left to do for a part.
pub fn is_done(folder: &Path, part: &Part) -> bool {
    of(folder, part).is_some_and(|record| record.finished) && folder.join(&part.outputs[0]).exists()
}

/// Writes a part's record.
pub fn write(folder: &Path, part: &Part, record: &Record) -> Result<()> {
    let path = path(folder, part, "json");
    atomic::refuse_existing(&path, true)?;
    write_json(&path, true, record)
}

/// Makes room for a part's outputs. What an earlier run has finished is kept beside them, under a name that ends in `.earlier`,
/// `.earlier-2` and so on. What it was interrupted in is removed, and what no record knows of is somebody else's and
/// refused.
pub fn vacate(folder: &Path, part: &Part) -> Result<()> {
    let record: Option<Record> = read_json(&path(folder, part, "json")).ok();
    for output in part.outputs.iter().map(|output| folder.join(output)) {
        if output.symlink_metadata().is_err() {
            continue;
        }
        let Some(record) = &record else {
            let what = "it is there, and no record says that this experiment made it";
            let hint = "Move it away, or give another folder with --out";
            return Err(Error::new(Kind::Exists, what).at(output).hint(hint));
        };
        if record.finished {
            let earlier = earlier_name(&output);
            std::fs::rename(&output, &earlier).map_err(|e| Error::io(e, "keep what was made earlier", &output))?;
        } else {
            remove(&output)?;
        }
    }
    Ok(())
}

/// A name beside `output` that nothing has yet.
fn earlier_name(output: &Path) -> PathBuf {
    let named = |number: usize| {
        let mut name = output.as_os_str().to_owned();
        name.push(".earlier");
        if number > 1 {
            name.push(format!("-{number}"));
        }
        PathBuf::from(name)
    };
    (1..).map(named).find(|name| name.symlink_metadata().is_err()).expect("numbers do not end")
}

/// Removes a file or a folder that may be there.
fn remove(path: &Path) -> Result<()> {
    let removed = match path.symlink_metadata() {
        Ok(about) if about.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(_) => Ok(()),
    };
    removed.map_err(|e| Error::io(e, "remove what is to be made again", path))
}
