//! The SQLite engine against real SQLite: conformance of attach, tail, fence and shadow. The
//! native engine the same, and against a model, kills and racing threads.
mod native_child;
mod native_rest;
mod native_shadow;
mod native_source;
mod native_store;
mod native_threads;
mod native_view;
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
