//! The SQLite engine against real SQLite: conformance of attach, tail, fence and shadow.
mod native_shadow;
mod native_source;
mod replica;
mod shadow;
mod shadow_crash;
mod shadow_history;
mod shadow_landing;
mod source_attach;
mod source_checkpoint;
mod source_fence;
mod source_rest;
mod source_tail;
mod worker;
