//! The scripted guest's `file.*`, plain and blocking.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::Mutex;

use agent_core::rpc::{Fault, Outcome, Value};
use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::{Mischief, path};

#[derive(Default)]
pub struct Files(Mutex<BTreeMap<i64, Open>>);

struct Open {
    file: File,
    position: u64,
    digest: Xxh3,
    replaces: Option<(PathBuf, PathBuf)>,
}

fn hex(digest: u128) -> String {
    format!("xxh3-128:{digest:032x}")
}

impl Files {
    pub fn call(&self, method: &str, params: &[Value], mischief: &Mischief) -> Outcome {
        let params = params.first().cloned().unwrap_or_default();
        let int = |name: &str| params.get(name).and_then(Value::as_int);
        let os = |error: std::io::Error| Fault::os(method, &error);
        let mut files = self.0.lock().unwrap();
        match method {
            "file.stat" => {
                let found = fs::metadata(path(&params, "path")?).map_err(os)?;
                Ok(Value::object([
                    ("type", if found.is_dir() { "directory" } else { "file" }.into()),
                    ("size", Value::Int(found.len() as i64)),
                    ("mode", Value::Int((found.permissions().mode() & 0o7777).into())),
                    ("mtime", Value::Double(found.mtime() as f64 + found.mtime_nsec() as f64 / 1e9)),
                ]))
            }
            "file.open" => {
                let target = path(&params, "path")?;
                let mode = params.get("mode").and_then(Value::as_str).unwrap_or_default();
                let beside = target.with_extension("replacing");
                let file = match mode {
                    "read" => File::open(&target),
                    "write" => OpenOptions::new().write(true).open(&target),
                    "create" => OpenOptions::new().write(true).create_new(true).open(&target),
                    "replace" => File::create(&beside),
                    _ => return Err(Fault::invalid_params(format!("mode {mode}"))),
                };
                let file = file.map_err(os)?;
                let size = file.metadata().map_err(os)?.len();
                let handle = files.len() as i64 + 1;
                let replaces = (mode == "replace").then_some((beside, target));
                files.insert(handle, Open { file, position: 0, digest: Xxh3::new(), replaces });
                Ok(Value::object([("handle", Value::Int(handle)), ("size", Value::Int(size as i64))]))
            }
            "file.read" => {
                let open = files.get_mut(&int("handle").unwrap_or(0)).ok_or_else(|| Fault::invalid_params("handle"))?;
                let offset = int("offset").map_or(open.position, |offset| offset as u64);
                let length = (int("length").unwrap_or(262_144) as usize).min(mischief.short.unwrap_or(usize::MAX));
                let mut data = vec![0; length];
                let came = open.file.read_at(&mut data, offset).map_err(os)?;
                data.truncate(came);
                open.digest.update(&data);
                open.position = offset + came as u64;
                let eof = open.position >= open.file.metadata().map_err(os)?.len();
                if mischief.corrupt
                    && let Some(byte) = data.first_mut()
                {
                    *byte ^= 1;
                }
                Ok(Value::object([("data", Value::Bytes(data.into())), ("eof", eof.into())]))
            }
            "file.write" => {
                let open = files.get_mut(&int("handle").unwrap_or(0)).ok_or_else(|| Fault::invalid_params("handle"))?;
                let data = params.get("data").and_then(Value::as_bytes).cloned().unwrap_or_default();
                let data = data.slice(..data.len().min(mischief.short.unwrap_or(usize::MAX)));
                let offset = int("offset").map_or(open.position, |offset| offset as u64);
                open.file.write_all_at(&data, offset).map_err(os)?;
                open.position = offset + data.len() as u64;
                Ok(Value::object([("written", Value::Int(data.len() as i64))]))
            }
            "file.close" => {
                let open = files.remove(&int("handle").unwrap_or(0)).ok_or_else(|| Fault::invalid_params("handle"))?;
                let Some((beside, target)) = open.replaces else {
                    // A digest of reads in order; writes are digested by file.digest.
                    let in_order = open.digest.digest128();
                    let answered = (mischief.short.is_none() && open.position > 0).then(|| hex(in_order).into());
                    return Ok(Value::object([("digest", answered.unwrap_or(Value::Nil))]));
                };
                let wanted = params.get("digest").and_then(Value::as_str);
                let discard = params.get("discard").and_then(Value::as_bool) == Some(true);
                if discard || wanted != Some(&hex(xxh3_128(&fs::read(&beside).map_err(os)?))) {
                    fs::remove_file(beside).map_err(os)?;
                    return if discard { Ok(Value::Nil) } else { Err(Fault::invalid_params("the digests differ")) };
                }
                fs::rename(beside, target).map_err(os)?;
                Ok(Value::object([]))
            }
            "file.digest" => {
                let bytes = fs::read(path(&params, "path")?).map_err(os)?;
                let length = int("length").map_or(bytes.len(), |length| (length as usize).min(bytes.len()));
                let digest = hex(xxh3_128(&bytes[..length]));
                Ok(Value::object([("digest", digest.into()), ("size", Value::Int(length as i64))]))
            }
            "file.rename" => fs::rename(path(&params, "from")?, path(&params, "to")?).map_err(os).map(|()| Value::Nil),
            "file.remove" => fs::remove_file(path(&params, "path")?).map_err(os).map(|()| Value::Nil),
            _ => Err(Fault::method_not_found(method)),
        }
    }
}
