# The container path, for the Makefile at the top. BOX is spark, thor or demo; without it .env says.

.PHONY: image image-demo model up down logs doctor accept monitoring monitoring-down pin test-container
image: ## build the image of this box (BOX=spark, thor, demo)
	@docker/image.sh $(BOX)

image-demo: ## build the image that runs on a laptop
	@docker/image.sh demo

model: .venv/.runtime ## fetch the model of .env (103 GB), or go on with it
	@docker/up.sh model

up: ## start the container, and wait until it is ready (BOX=…)
	@docker/up.sh up $(BOX)

down: ## end it in order; keys and caches stay (BOX=…)
	@docker/up.sh down $(BOX)

logs: ## follow its log (BOX=…)
	@docker/up.sh logs $(BOX)

doctor: .venv/.runtime ## check this machine: Docker, GPU, memory, model, network
	@$(BIN)/appliance doctor $(if $(BOX),--profile $(BOX))

accept: .venv/.runtime ## accept this box, one report (DEMO=1, BOX=…, FLAGS=--with-kill)
	@DEMO=$(DEMO) BOX=$(BOX) docker/accept.sh $(FLAGS)

monitoring: ## Prometheus and Grafana beside the box (BOX=…)
	@docker/monitoring/up.sh up $(BOX)

monitoring-down: ## end both; what they recorded stays (BOX=…)
	@docker/monitoring/up.sh down $(BOX)

pin: ## find the digests of the base images, and the model's revision
	@docker/pin.sh

test-container: .venv/.dev ## the images and the container, over a real Docker engine
	@docker/ci/test.sh
