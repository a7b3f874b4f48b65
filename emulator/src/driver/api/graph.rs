//! `cuGraph*`, as far as captured graphs need them.

use std::ffi::c_void;

use super::{Out, call};
use crate::driver::error::Status;

#[unsafe(no_mangle)]
extern "C" fn cuGraphInstantiateWithFlags(executable: Out<*mut c_void>, graph: *mut c_void, flags: u64) -> Status {
    call("cuGraphInstantiateWithFlags", |driver| {
        let serial = driver.instantiate(graph, flags)?;
        executable.put(driver.executables.handle(serial))
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphLaunch(executable: *mut c_void, stream: *mut c_void) -> Status {
    call("cuGraphLaunch", |driver| {
        let stream = driver.stream(stream)?;
        driver.launch_graph(executable, stream)
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphUpload(executable: *mut c_void, stream: *mut c_void) -> Status {
    call("cuGraphUpload", |driver| {
        driver.stream(stream)?;
        driver.executables.serial(executable).map(|_| ())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphExecDestroy(executable: *mut c_void) -> Status {
    call("cuGraphExecDestroy", |driver| {
        let serial = driver.executables.serial(executable)?;
        driver.executables.remove(serial);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphDestroy(graph: *mut c_void) -> Status {
    call("cuGraphDestroy", |driver| {
        let serial = driver.graphs.serial(graph)?;
        driver.graphs.remove(serial);
        Ok(())
    })
}

#[unsafe(no_mangle)]
extern "C" fn cuGraphGetNodes(graph: *mut c_void, nodes: Out<*mut c_void>, count: Out<usize>) -> Status {
    call("cuGraphGetNodes", |driver| {
        let number = driver.graphs.get(graph)?.nodes.len();
        if !nodes.0.is_null() {
            return crate::driver::error::fail(Status::NOT_SUPPORTED, "nodes can be counted, not looked at");
        }
        count.put(number)
    })
}
