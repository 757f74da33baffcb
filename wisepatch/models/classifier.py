from wisepatch.models.head import Classifier as Classifier
from wisepatch.models.head import features as features
from wisepatch.models.head import logits as logits
