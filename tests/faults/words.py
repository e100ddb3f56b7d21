"""Bad command lines, one a line, as a shell would take them. The quick defaults come before each."""

REFUSED = """
sparsity.grid=[]
sparsity.grid=[0.5,0.5]
sparsity.grid=[1]
sparsity.grid=[-0.1]
sparsity.grid=[nan]
sparsity.grid=[inf]
sparsity.grid=[abc]
sparsity.grid=[null]
sparsity.grid=[true]
sparsity.grid=[[0.5]]
sparsity.grid=null
sparsity.grid=[1e400]
sparsity.grid={a:0.5}
seed=-1
seed=1.5
seed=abc
seed=null
seed=true
seed=1e400
seed=99999999999999999999999
threads=0
threads=-1
threads=1.5
threads=abc
threads=99999999999999
device=cuda:99
device=tpu
device=null
device=meta
"device=''"
calibration.images=0
calibration.images=-1
calibration.images=1.5
calibration.images=nan
calibration.images=abc
calibration.images=1000000000000
calibration.scoring_images=0
calibration.scoring_images=65
calibration.scoring_images=-3
calibration.batch_size=1
calibration.batch_size=0
calibration.samples=0
calibration.samples=-1
calibration.seed=-1
calibration.seed=1.5
calibration.seed=1180591620717411303424
rounds.keep_factor=0
rounds.keep_factor=1
rounds.keep_factor=1.5
rounds.keep_factor=nan
rounds.keep_factor=-0.5
rounds.keep_factor=abc
macs_removed=1
macs_removed=-0.1
macs_removed=nan
macs_removed=2
macs_removed=abc
macs_removed=0.5 budget=macs
macs_removed=0.5 method=alds
budget=foo
budget=foo method=alds
budget=null
exclude=[nothing*]
exclude=[features]]
exclude=[1]
"exclude=['*']"
"exclude=['features','classifier']"
"exclude=['']"
blocking=alds blocking.k=0
blocking=alds blocking.k=-1
blocking=alds blocking.k=1.5
blocking=alds blocking.k=abc
blocking=alds blocking.k=nan
blocking=squar
blocking=null
"blocking=''"
scorer=unknown
scorer=null
scorer=[magnitude]
scorer=magnitude,variance
scorer=../estimator/exact
scorer=noise_to_signal scorer.depth=nan
scorer=noise_to_signal scorer.depth=-1
scorer=noise_to_signal scorer.depth=inf
scorer=noise_to_signal scorer.depth=abc
scorer=noise_to_signal scorer.floor=0
scorer=noise_to_signal scorer.floor=-1
scorer=noise_to_signal scorer.floor=nan
scorer=magnitude scorer.depth=0.5
estimator.temperature=0
estimator.temperature=nan
estimator.temperature=inf
estimator.temperature=-1
estimator.output=foo
estimator=exact estimator.memory_limit=0
estimator=exact estimator.memory_limit=nan
estimator=exact estimator.memory_limit=-1
estimator.projections=0
estimator.projections=1.5
estimator.projections=-1
estimator.output_fn=no.such.thing
estimator.output_fn=json
estimator.output_fn=os.getcwd
"estimator.output_fn=''"
selection.round_to=0
selection.round_to=1.5
selection.round_to=-8
selection.break_even=foo
selection.per_parameter=3
selection.per_parameter=maybe
selection=joint selection.shrinkage=-1
selection=joint selection.shrinkage=1
selection=joint selection.shrinkage=nan
selection=joint selection.mean_free=2
compensation=least_squares compensation.ridge=-1
compensation=least_squares compensation.ridge=nan
compensation=least_squares compensation.ridge=inf
compensation=least_squares compensation.metric=foo
recovery=finetune recovery.epochs=0
recovery=finetune recovery.epochs=-1
recovery=finetune recovery.epochs=1.5
recovery=finetune recovery.epochs=1 recovery.lr=0
recovery=finetune recovery.epochs=1 recovery.lr=nan
recovery=finetune recovery.epochs=1 recovery.lr=-1
recovery=finetune recovery.epochs=1 recovery.lr=1e30
recovery=finetune recovery.epochs=1 recovery.distill=2
recovery=finetune recovery.epochs=1 recovery.distill=nan
recovery=finetune recovery.epochs=1 recovery.temperature=0
recovery=finetune recovery.epochs=1 recovery.images=1
recovery=finetune recovery.epochs=1 recovery.images=1000000
recovery=finetune recovery.epochs=1 recovery.hold_out=maybe
recovery=finetune recovery.epochs=1 recovery.precision=float16
recovery=finetune recovery.epochs=1 recovery.momentum=1
recovery=finetune recovery.epochs=1 recovery.weight_decay=-1
recovery=finetune recovery.epochs=1 recovery.weight_decay=nan
recovery=finetune recovery.epochs=1 recovery.batch_size=1
recovery=finetune recovery.hold_out=false evaluation.part=validation
evaluation.part=train
evaluation.part=null
evaluation.batch_size=0
evaluation.batch_size=-5
evaluation.latency=3
-m evaluation.latency=true seed=0,1 hydra/launcher=joblib hydra.launcher.n_jobs=2
model.width=0
model.width=-1
model.width=nan
model.width=inf
model.width=abc
model.width=1000000
model.width=1e300
model.training.epochs=-1
model.training.lr=0
model.training.lr=1e20
model.training.batch_size=0
model.training.precision=half
model._target_=no.such.Net
model._target_=os.getcwd
model._target_=torch.nn.Linear
model._target_=json
"model._target_=''"
model.checkpoint=5
model.name=null
"model.checkpoint=''"
model=unknown
model.depth=3
tracker=foo
tracker=wandb tracker.mode=foo
experiment=foo
study=foo
method=foo
recovery=foo
selection=foo
estimator=foo
decomposition=foo
compensation=foo
dataset=foo
sparsity=foo
hydra/launcher=foo
study=dim_rank blocking=alds
study=dim_rank study.dims=[]
study=dim_rank study.ranks=[0]
study=dim_rank study.dims=[10] study.ranks=[100]
study=dim_rank study.epochs=0
study=dim_rank study.dims=[10,10]
study=dim_rank study.dims=[1.5]
study=dim_rank study.lr=nan
study=rank_switch study.grow=foo
study=rank_switch study.switch_epochs=[99]
study=simplicity_bias study.networks=[foo]
study=simplicity_bias study.depths=[0]
study=simplicity_bias study.sparsities=[1.5]
study=simplicity_bias study.scorer=foo
study.dims=[1]
calibratoin.images=3
+foo=1
++foo.bar=1
calibration.foo=1
~scorer
foo
=
=5
blocking=
sparsity.grid=[0.5
blocking=alds,square
seed=0,1
scorer.
'a b=1'
'seed=0 1'
blocking@x=alds
hydra.foo=1
--nonsense
-x
'${seed}'
'seed=${nothing}'
'device=${oc.env:HOME}'
'sparsity.grid=${sparsity.grid}'
'cache_dir=${cache_dir}'
'seed=0 ; touch CANARY'
-m seed=range(0,0)
-m seed=choice()
-m blocking=none,alds,foo
-m seed=0,1,-1
-m method=singular_vectors,alds macs_removed=null,0.5
save=3
save=maybe
save=null
resume=maybe
resume=5
dataset.crop=-1
dataset.crop=1.5
dataset.crop=nan
dataset.flip=3
dataset.path=5
dataset=folder
dataset=folder dataset.path=/no/such/folder
dataset=cifar10 dataset.path=/no/such/folder
method=alds method.starts=0
method=alds method.starts=abc
method=alds method.seed=-1
method=alds method.sqrt_k=maybe
method.starts=3
cache_dir=null
"cache_dir=''"
cache_dir=/proc/lrp
hydra.run.dir=/proc/lrp
budget=milliseconds
budget=milliseconds method=alds
budget=milliseconds macs_removed=0.5 method=output_aware
budget=[params,macs]
budget_of=foo
budget_of=null
method=output_aware budget_of=network sparsity.grid=[0.9999999]
forms=foo
forms=5
forms=[]
forms=[matrix,foo]
forms={matrix:1}
method=output_aware forms=[matrix,matrix]
method=output_aware form.rounds=0
search=foo
search=null
search=coordinate search.images=0
search=coordinate search.images=1.5
search=coordinate search.images=abc
search=coordinate search.steps=[]
search=coordinate search.steps=null
search=coordinate search.steps=[foo]
search=coordinate 'search.steps=[{scorer:[]}]'
search=coordinate 'search.steps=[{scorer:[{depth:-1}]}]'
search=coordinate 'search.steps=[{nothing:[{depth:1}]}]'
search=coordinate 'search.steps=[{scorer:[{nothing:1}]}]'
search.images=3
dataset=text
dataset=text model=small_lm model.width=16 dataset.length=1
dataset=text model=small_lm model.width=16 dataset.length=0
dataset=text model=small_lm model.width=16 dataset.length=1.5
dataset=text model=small_lm model.width=16 dataset.length=abc
dataset=text model=small_lm model.width=16 dataset.length=100000000
dataset=text model=small_lm model.width=16 dataset.length=512 model.training.epochs=0
dataset=text model=small_lm model.width=16 dataset.path=5
dataset=text model=small_lm model.width=16 dataset.path=/no/such/file
dataset=text model=small_lm model.width=16 dataset.path=/dev/null
dataset=text model=small_lm model.width=16 dataset.path=/dev/zero
dataset=text model=small_lm model.width=16 dataset.path=/dev
dataset=text model=small_lm model.width=16 dataset.test_path=/no/such/file
dataset=text model=small_lm model.width=16 dataset.tokenizer=/no/such/folder
dataset=text model=small_lm model.width=16 dataset.tokenizer=5
dataset=text model=small_lm model.width=16 dataset.tokenizer=/dev/null
dataset=text model=small_lm model.width=16 dataset.size=32
model=small_lm model.width=16
model=small_lm model.width=0 dataset=text
model=small_lm model.width=1.5 dataset=text
model=small_lm model.width=16 model.heads=3 dataset=text
model=small_lm model.width=16 model.heads=0 dataset=text
model=small_lm model.width=16 model.layers=0 dataset=text
model=small_lm model.width=16 model.layers=abc dataset=text
model=small_lm model.width=16 model.length=0 dataset=text
model=small_lm model.width=16 model.length=8 dataset=text
model=small_lm model.width=16 model.depth=3 dataset=text
model=huggingface dataset=text
model=huggingface dataset=text model.path=5
model=huggingface dataset=text model.path=/no/such/folder
model=huggingface dataset=text model.path=/dev
model=huggingface dataset=text model.path=gpt2
model=huggingface dataset=text model.path=/dev model.task=poetry
model=huggingface dataset=text model.path=/dev model.task=null
calibration.images=64 calibration.batch_size=abc
recovery=finetune recovery.epochs=1 dataset=text model=small_lm model.width=16 recovery.lr=-1
"""

EITHER = """
sparsity.grid=0.5
"sparsity.grid='0.5'"
sparsity.grid=[1e-400]
sparsity.grid=[0.5,0.5000001] save=true
seed=9223372036854775807
seed=9223372036854775807 recovery=finetune recovery.epochs=1 recovery.images=64
threads=1000000
device=cuda
device=cpu:7
calibration.seed=1e3
calibration.seed=9223372036854775808
calibration.samples=1 compensation=least_squares
exclude=features.0
blocking=alds blocking.k=1000000000
estimator.output=hellinger estimator.temperature=1e-300
estimator.output=hellinger estimator.temperature=1e300
estimator=exact estimator.memory_limit=1e-300
estimator=exact estimator.projections=0
selection.round_to=1000000000
selection=joint scorer=magnitude
selection=joint estimator=exact
selection.batch_size=0
macs_removed=0.3 method=svd_uniform
tracker.mode=foo
"tracker.project=''"
seed=0 seed=1
dataset.crop=100000 model.training.epochs=0
dataset.path=/no/such/folder
method=alds scorer=variance
method=alds blocking=alds blocking.k=2
method=alds rounds.keep_factor=0.5
method=balf scorer=variance
recovery.epochs=3
recovery.epochs=-3
compensation.ridge=-3
blocking.k=0
method=output_aware compensation.ridge=0.1
model.training.epochs=0
budget_of=network
search=coordinate scorer=magnitude search.images=4
search=coordinate method=svd_uniform search.images=4
forms=matrix
method=output_aware forms=auto
method=output_aware forms=null
method=output_aware budget=milliseconds
method=output_aware budget_of=network
method=alds budget_of=network
method=output_aware budget=macs budget_of=network
search=coordinate search.images=1 method=output_aware
dataset=text model=small_lm model.width=16 dataset.flip=true model.training.epochs=0
dataset=text model=small_lm model.width=16 model.heads=1 model.layers=1 dataset.crop=8 model.training.epochs=0 calibration.samples=1
"""
