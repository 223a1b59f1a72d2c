//! The files of a shadow in its generation directory.

use std::path::Path;

use io::durable;
use io::engine::shadow::{Attributes as FileAttributes, Shadow, ShadowPaths, ShadowSpec};
use io::remap::Generation;
use wal::PartitionName;
use wal::message::Attributes;

use super::super::setup::Setup;

/// The partition's name in its generation directory, for recovery.
const NAME_FILE: &str = "shadow.name";

/// A shadow and where it is; `None` while a helper thread has it.
pub struct Held {
    pub shadow: Option<Shadow>,
    pub generation: Generation,
}

pub(super) fn create(
    setup: &Setup,
    place: usize,
    name: &PartitionName,
    page_size: u32,
    attributes: Attributes,
) -> io::Result<Held> {
    let generation = setup.places[place].remap().allocate(name)?;
    let dir = setup.places[place].remap().dir(generation);
    write_name(&dir, name)?;
    let attributes = FileAttributes {
        mode: attributes.mode,
        uid: attributes.uid,
        gid: attributes.gid,
    };
    let spec = ShadowSpec {
        partition: name.id(),
        page_size,
        attributes,
    };
    let shadow = Shadow::create(&ShadowPaths::new(&dir, file_name(name)), &spec)?;
    Ok(Held {
        shadow: Some(shadow),
        generation,
    })
}

/// The last part of a partition's name.
pub fn file_name(name: &PartitionName) -> &str {
    name.as_str().rsplit('/').next().unwrap_or(name.as_str())
}

/// Notes in a generation directory whose shadow it holds; durable with the directory's next sync,
/// which [`Shadow::create`] does. Without its bytes nobody knows the shadow after a power cut.
pub fn write_name(dir: &Path, name: &PartitionName) -> io::Result<()> {
    let path = dir.join(NAME_FILE);
    let file = std::fs::File::create(&path);
    let file = file.map_err(|error| io::Error::at("create", &path, error))?;
    durable::write_at(&file, &path, name.as_str().as_bytes(), 0)?;
    durable::sync_data(&file, &path)
}

/// The partition whose shadow a generation directory holds.
pub fn read_name(dir: &Path) -> Option<PartitionName> {
    PartitionName::new(
        std::fs::read_to_string(dir.join(NAME_FILE))
            .ok()?
            .trim_end(),
    )
}
