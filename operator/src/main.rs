//! placeholder
fn main() {
    print!("{}", quorate_operator::crd::yaml());
}
