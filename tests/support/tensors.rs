//! Tensors of a safetensors file as plain numbers.

use safetensors::SafeTensors;

/// The numbers of the tensor called `name`, in the file's order.
pub fn numbers<T: bytemuck::Pod>(file: &SafeTensors, name: &str) -> Vec<T> {
    let data = file.tensor(name).unwrap().data();
    data.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()
}
