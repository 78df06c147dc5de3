//! From what the user names as a dataset to samples, a split and a task.

use crate::data::{self, Dataset, ImageDataset, Split, SplitOptions};
use crate::encoder::{BACKBONE_DIM, TaskSample};
use crate::sample::Image;
use crate::state::State;
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use tans_storage::{
    Dtype, HashedTensor, NewTensor, Staging, Store, TaskId, TaskRecord, TaskSampleRecord, TensorId,
};

/// What a query, a measurement or a fine-tuning is about.
#[derive(Clone, Debug)]
pub enum DatasetSource {
    /// A stored task, by name: enough wherever no image is needed.
    Task(String),
    /// An image folder, npz, npy pair, IDX pair, or feature rows.
    Path(PathBuf),
    /// Images in memory with a label each.
    Images {
        /// What to call the dataset.
        name: String,
        /// The images.
        images: Vec<Image>,
        /// One label per image.
        labels: Vec<u32>,
    },
}

impl DatasetSource {
    /// `task:NAME` is a stored task, everything else a path.
    pub fn parse(text: &str) -> Self {
        match text.strip_prefix("task:") {
            Some(name) => Self::Task(name.to_owned()),
            None => Self::Path(PathBuf::from(text)),
        }
    }

    /// Images in memory as `numpy.save` writes them, with a label each: every type and shape that an .npz may have.
    ///
    /// # Errors
    /// `Error::Data` for an array that holds no images.
    pub fn from_npy(images: &[u8], labels: Vec<u32>) -> Result<Self> {
        let images = data::open_npy_images("images", images)?;
        Ok(Self::Images { name: "arrays".to_owned(), images, labels })
    }
}

/// How many samples of a dataset are used, and for what.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SampleOptions {
    /// At most this many samples of each class. Default 100.
    pub per_class: usize,
    /// Share of the training part. Default 0.6.
    pub train_share: f32,
    /// Seed of sampling and split. Default 0.
    pub seed: u64,
}

impl Default for SampleOptions {
    fn default() -> Self {
        Self { per_class: 100, train_share: 0.6, seed: 0 }
    }
}

/// Labelled images of one side of the split.
#[derive(Default)]
pub struct Part {
    /// Images.
    pub images: Vec<Image>,
    /// Their labels.
    pub labels: Vec<u32>,
}

/// Further splits of the same images that a probe is averaged over: with the first one, nearly every image is tested.
const RESPLITS: u64 = 4;

/// Decoded, sampled and split images.
pub struct Samples {
    /// What to call the dataset: its file or folder name.
    pub name: String,
    /// By label.
    pub class_names: Vec<String>,
    /// Training part.
    pub train: Part,
    /// Test part.
    pub test: Part,
    /// Group of each image, in the order train then test, where the dataset has groups.
    groups: Option<Vec<u32>>,
    /// How they were split.
    split: SplitOptions,
    /// Identity of the sampled dataset as a task.
    pub task: TaskId,
    /// Hashes of all images, in the order train then test.
    pub image_hashes: Vec<[u8; 32]>,
    /// (file, reason) of images that could not be read.
    pub skipped: Vec<(String, String)>,
}

impl Samples {
    /// Of all images, in the order train then test.
    pub fn labels(&self) -> Vec<u32> {
        [&self.train.labels[..], &self.test.labels].concat()
    }

    /// Group of each image of the training part, where the dataset has groups.
    pub fn train_groups(&self) -> Option<&[u32]> {
        self.groups.as_deref().and_then(|groups| groups.get(..self.train.labels.len()))
    }

    /// Whether images come in groups that splits keep whole.
    pub fn is_grouped(&self) -> bool {
        self.groups.is_some()
    }

    /// Further splits of the same images, as wide and with groups kept together, by position in train then test.
    pub fn resplits(&self) -> Vec<Split> {
        let labels = self.labels();
        let resplit = |further| {
            let options =
                SplitOptions { seed: self.split.seed.wrapping_add(further), ..self.split };
            data::split(&labels, self.groups.as_deref(), &options)
        };
        (1..=RESPLITS).map(resplit).collect()
    }
}

/// A dataset that is to become a task: its images, or the rows that `encode` has made of them.
#[cfg(feature = "torch")]
pub struct Given {
    /// Identity as a task.
    pub task: TaskId,
    /// By label.
    pub class_names: Vec<String>,
    /// Hashes of all images; empty for rows.
    pub image_hashes: Vec<[u8; 32]>,
    /// (file, reason) of images that could not be read.
    pub skipped: Vec<(String, String)>,
    content: Content,
}

#[cfg(feature = "torch")]
enum Content {
    Images(Samples),
    Rows(TaskSample),
}

#[cfg(feature = "torch")]
impl Given {
    /// Reads what was given; images are not run through the backbone yet.
    pub fn open(state: &State, source: &DatasetSource, options: &SampleOptions) -> Result<Self> {
        if let DatasetSource::Path(path) = source
            && let Dataset::Rows(rows) = data::open(path)?
        {
            let class_names = rows.class_names.clone();
            refuse_sampling(options, &path.display().to_string(), "feature rows")?;
            let Query { task, sample, .. } = rows_query(state, path, rows, options)?;
            let task = task.ok_or_else(|| {
                Error::input(format!(
                    "{}: expected rows that say which dataset they are of, as `tans encode` writes them, found none",
                    path.display()
                ))
            })?;
            let content = Content::Rows(sample);
            let (image_hashes, skipped) = (Vec::new(), Vec::new());
            return Ok(Self { task, class_names, image_hashes, skipped, content });
        }
        let mut samples = samples(source, options)?;
        Ok(Self {
            task: samples.task,
            class_names: samples.class_names.clone(),
            image_hashes: samples.image_hashes.clone(),
            skipped: std::mem::take(&mut samples.skipped),
            content: Content::Images(samples),
        })
    }

    /// What the zoo keeps of it; runs the backbone on images.
    pub fn measure(
        &self,
        state: &State,
        seed: u64,
        observer: crate::Observer<'_>,
    ) -> Result<TaskSample> {
        match &self.content {
            Content::Images(samples) => Ok(measure(state, samples, seed, observer)?.0),
            Content::Rows(sample) => Ok(sample.clone()),
        }
    }
}

/// Opens a path that must hold images.
pub fn open_images(path: &Path) -> Result<ImageDataset> {
    match data::open(path)? {
        Dataset::Images(images) => Ok(images),
        Dataset::Rows(_) => Err(Error::input(format!(
            "{}: expected images, found feature rows: this operation runs networks on images",
            path.display()
        ))),
    }
}

/// Samples, decodes and splits a dataset of images.
pub fn samples(source: &DatasetSource, options: &SampleOptions) -> Result<Samples> {
    match source {
        DatasetSource::Task(name) => Err(Error::input(format!(
            "task:{name}: expected a dataset with images, found a stored task: a zoo keeps no images"
        ))),
        DatasetSource::Path(path) => {
            let dataset = open_images(path)?;
            load_samples(dataset_name(path), &dataset, options)
        }
        DatasetSource::Images { name, images, labels } => {
            let dataset = ImageDataset::from_images(name, images.clone(), labels)?;
            load_samples(name.clone(), &dataset, options)
        }
    }
}

/// The last part of a path without a suffix.
pub fn dataset_name(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let stem =
        path.file_stem().map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    // It becomes a part of names, which have no blanks at an end.
    match stem.trim() {
        "" => "dataset".to_owned(),
        name => name.to_owned(),
    }
}

/// Samples, decodes and splits an opened dataset of images.
pub fn load_samples(
    name: String,
    dataset: &ImageDataset,
    options: &SampleOptions,
) -> Result<Samples> {
    check_options(options)?;
    let loaded = dataset.load(&dataset.sample(options.per_class, options.seed));
    dataset.check_loaded(&loaded)?;
    let split_options = SplitOptions { train_share: options.train_share, seed: options.seed };
    let groups = loaded.groups.filter(|groups| groups.len() == loaded.labels.len());
    let split = data::split(&loaded.labels, groups.as_deref(), &split_options);
    // Moved, because images may be large.
    let mut images: Vec<Option<Image>> = loaded.images.into_iter().map(Some).collect();
    let mut part = |indices: &[usize]| Part {
        images: indices.iter().filter_map(|&index| images[index].take()).collect(),
        labels: indices.iter().map(|&index| loaded.labels[index]).collect(),
    };
    let (train, test) = (part(&split.train), part(&split.test));
    let image_hashes: Vec<[u8; 32]> =
        train.images.iter().chain(&test.images).map(Image::hash).collect();
    let labels: Vec<u32> = train.labels.iter().chain(&test.labels).copied().collect();
    let in_order = |groups: Vec<u32>| -> Vec<u32> {
        split.train.iter().chain(&split.test).map(|&index| groups[index]).collect()
    };
    Ok(Samples {
        name,
        class_names: dataset.class_names.clone(),
        train,
        test,
        groups: groups.map(in_order),
        split: split_options,
        task: TaskId::of_images(&image_hashes, &labels),
        image_hashes,
        skipped: loaded.skipped,
    })
}

fn check_options(options: &SampleOptions) -> Result<()> {
    if options.per_class < 2 {
        return Err(Error::input(format!(
            "samples per class: expected at least 2, found {}",
            options.per_class
        )));
    }
    if !(options.train_share > 0.0 && options.train_share < 1.0) {
        return Err(Error::input(format!(
            "training share: expected a fraction between 0 and 1, found {}",
            options.train_share
        )));
    }
    Ok(())
}

/// A task record to be: what `store_task` needs.
pub struct NewTask<'a> {
    /// Content address.
    pub id: TaskId,
    /// Name, unique among tasks.
    pub name: &'a str,
    /// Family; `None` = a family of its own.
    pub family: Option<String>,
    /// By label.
    pub class_names: &'a [String],
    /// Measured sample.
    pub sample: &'a TaskSample,
    /// Empty for bare rows.
    pub image_hashes: &'a [[u8; 32]],
    /// One of the built-in benchmark tasks.
    pub benchmark: bool,
}

/// Writes a task's tensors and returns the record, for the caller to commit as long as it holds `staging`.
pub fn store_task(
    store: &Store,
    staging: &mut Staging<'_>,
    new: &NewTask<'_>,
) -> Result<TaskRecord> {
    let rows = super::f16_bytes(new.sample.rows.values());
    let means = super::f16_bytes(new.sample.class_means.values());
    let hashes = new.image_hashes.concat();
    let dim = new.sample.rows.dim();
    let rows_shape = [new.sample.rows.len(), dim];
    let means_shape = [new.sample.class_means.len(), dim];
    let hashes_shape = [new.image_hashes.len(), 32];
    let mut tensors = vec![
        NewTensor { dtype: Dtype::F16, shape: &rows_shape, bytes: &rows },
        NewTensor { dtype: Dtype::F16, shape: &means_shape, bytes: &means },
    ];
    if !new.image_hashes.is_empty() {
        tensors.push(NewTensor { dtype: Dtype::U8, shape: &hashes_shape, bytes: &hashes });
    }
    let hashed: Vec<HashedTensor<'_>> = tensors.into_iter().map(HashedTensor::new).collect();
    let ids: Vec<TensorId> = hashed.iter().map(HashedTensor::id).collect();
    staging.put(&hashed)?;
    store.sync_tensors()?;
    Ok(TaskRecord {
        id: new.id,
        name: new.name.to_owned(),
        family: new.family.clone(),
        class_names: new.class_names.to_vec(),
        sample: Some(TaskSampleRecord {
            backbone: store.backbone(),
            rows: ids[0],
            labels: new.sample.labels.clone(),
            class_means: ids[1],
            scalars: new.sample.scalars,
            image_hashes: ids.get(2).copied(),
        }),
        benchmark: new.benchmark,
        created: super::unix_seconds(),
    })
}

/// A reference task: a name without data.
pub fn reference_task(name: &str) -> TaskRecord {
    TaskRecord {
        id: TaskId::of_reference(name),
        name: name.to_owned(),
        family: None,
        class_names: Vec::new(),
        sample: None,
        benchmark: false,
        created: super::unix_seconds(),
    }
}

/// A dataset as a query sees it, with what it took to get there.
pub struct Query {
    /// What to call it.
    pub name: String,
    /// Identity as a task, stored or not; rows whose file names none have none.
    pub task: Option<TaskId>,
    /// Measured sample.
    pub sample: TaskSample,
    /// The decoded images, when the dataset has images.
    pub samples: Option<Samples>,
    /// (file, reason) of images that could not be read.
    pub skipped: Vec<(String, String)>,
    /// Milliseconds in the backbone (0 for cached rows, stored tasks and feature rows).
    pub backbone_ms: f64,
}

/// Finds out as far as that costs nothing whether `query` would take a dataset, and what it is called.
pub fn check(state: &State, source: &DatasetSource, options: &SampleOptions) -> Result<String> {
    match source {
        DatasetSource::Task(name) => Ok(stored_query(&state.store, name)?.name),
        DatasetSource::Path(path) => match data::open(path)? {
            Dataset::Rows(rows) => Ok(rows_query(state, path, rows, options)?.name),
            Dataset::Images(_) => check_options(options).map(|()| dataset_name(path)),
        },
        DatasetSource::Images { name, .. } => check_options(options).map(|()| name.clone()),
    }
}

/// Measures whatever the user named: a stored task, feature rows, or images through the backbone.
pub fn query(
    state: &State,
    source: &DatasetSource,
    options: &SampleOptions,
    observer: crate::Observer<'_>,
) -> Result<Query> {
    match source {
        DatasetSource::Task(name) => {
            refuse_sampling(options, &format!("task:{name}"), "a stored task")?;
            stored_query(&state.store, name)
        }
        DatasetSource::Path(path) => match data::open(path)? {
            Dataset::Rows(rows) => {
                let sampled = SampleOptions { seed: 0, ..*options };
                refuse_sampling(&sampled, &path.display().to_string(), "feature rows")?;
                rows_query(state, path, rows, options)
            }
            Dataset::Images(_) => image_query(state, source, options, observer),
        },
        DatasetSource::Images { .. } => image_query(state, source, options, observer),
    }
}

/// What was sampled and split before is not sampled again.
fn refuse_sampling(options: &SampleOptions, name: &str, found: &str) -> Result<()> {
    if *options == SampleOptions::default() {
        return Ok(());
    }
    Err(Error::input(format!(
        "{name}: samples per class, training share and split seed are for images, found {found}: leave them out"
    )))
}

fn stored_query(store: &Store, name: &str) -> Result<Query> {
    let task = super::task(store, name)?;
    let sample = super::task_sample(store, &task)?.ok_or_else(|| {
        Error::input(format!(
            "task {name:?} is a reference: expected a task with stored rows; add the dataset with `tans task add`"
        ))
    })?;
    Ok(Query {
        name: task.name,
        task: Some(task.id),
        sample,
        samples: None,
        skipped: Vec::new(),
        backbone_ms: 0.0,
    })
}

fn rows_query(
    state: &State,
    path: &Path,
    dataset: data::RowDataset,
    options: &SampleOptions,
) -> Result<Query> {
    if dataset.backbone != state.store.backbone() {
        return Err(Error::input(format!(
            "{}: expected rows of this zoo's backbone {}, found rows of backbone {}: encode the images again with `tans encode`",
            path.display(),
            hex(&state.store.backbone()),
            hex(&dataset.backbone)
        )));
    }
    // They are stored as half floats.
    let most = half::f16::MAX;
    let is_narrow = |value: &f32| value.abs() <= most.to_f32();
    if dataset.rows.dim() != BACKBONE_DIM || !dataset.rows.values().iter().all(is_narrow) {
        return Err(Error::input(format!(
            "{}: expected rows of {BACKBONE_DIM} numbers, none beyond {most}, as `tans encode` writes them, found rows of {} numbers or larger ones",
            path.display(),
            dataset.rows.dim()
        )));
    }
    let mut sample = TaskSample::measure(&dataset.rows, &dataset.labels, None, options.seed)?;
    for (measured, given) in sample.scalars.iter_mut().zip(dataset.scalars) {
        *measured = given.or(*measured);
    }
    Ok(Query {
        name: dataset_name(path),
        task: dataset.task.map(TaskId),
        sample,
        samples: None,
        skipped: Vec::new(),
        backbone_ms: 0.0,
    })
}

/// The first eight bytes as hexadecimal digits.
pub fn hex(bytes: &[u8; 32]) -> String {
    bytes[..8].iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(feature = "torch")]
fn image_query(
    state: &State,
    source: &DatasetSource,
    options: &SampleOptions,
    observer: crate::Observer<'_>,
) -> Result<Query> {
    let mut samples = samples(source, options)?;
    let (sample, backbone_ms) = measure(state, &samples, options.seed, observer)?;
    Ok(Query {
        name: samples.name.clone(),
        task: Some(samples.task),
        sample,
        skipped: std::mem::take(&mut samples.skipped),
        samples: Some(samples),
        backbone_ms,
    })
}

#[cfg(not(feature = "torch"))]
fn image_query(
    _: &State,
    _: &DatasetSource,
    _: &SampleOptions,
    _: crate::Observer<'_>,
) -> Result<Query> {
    Err(Error::input(
        "this build has no libtorch (feature `torch`): expected a stored task (task:NAME) or feature rows, found images",
    ))
}

/// Backbone rows and landmarks of the training part, and the milliseconds spent in the backbone.
#[cfg(feature = "torch")]
pub fn measure(
    state: &State,
    samples: &Samples,
    seed: u64,
    observer: crate::Observer<'_>,
) -> Result<(TaskSample, f64)> {
    let train = &samples.train;
    let (rows, backbone_ms) =
        super::feature_cache::backbone_rows(&state.options, &train.images, observer)?;
    let sample = TaskSample::measure(&rows, &train.labels, Some(&train.images), seed)?;
    Ok((sample, backbone_ms))
}

/// The name, with a number where it belongs to another task.
pub fn free_task_name(store: &Store, wanted: &str) -> Result<String> {
    super::admit_name::free(wanted, |name| Ok(store.task_by_name(name)?.is_some()))
}

/// The task record of a dataset: the stored one, or a new one that the caller commits as long as it holds `staging`.
///
/// A new task is named after the dataset, with a number when that name belongs to another task.
#[cfg(feature = "torch")]
pub fn task_of(
    state: &State,
    staging: &mut Staging<'_>,
    samples: &Samples,
    seed: u64,
    observer: crate::Observer<'_>,
) -> Result<(TaskRecord, bool)> {
    if let Some(task) = state.store.task(samples.task)? {
        return Ok((task, false));
    }
    let (sample, _) = measure(state, samples, seed, observer)?;
    let name = free_task_name(&state.store, &samples.name)?;
    let new = NewTask {
        id: samples.task,
        name: &name,
        family: None,
        class_names: &samples.class_names,
        sample: &sample,
        image_hashes: &samples.image_hashes,
        benchmark: false,
    };
    Ok((store_task(&state.store, staging, &new)?, true))
}
