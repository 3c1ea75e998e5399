//! The process that holds a pod's namespaces: it does nothing, for as long as it is let.

fn main() {
    loop {
        std::thread::park();
    }
}
